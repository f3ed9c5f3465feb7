"""Text continued, token by token: prompts of any lengths in one batch, each token computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from foundation_core.errors import ConfigError
from foundation_core.model.attention import Cache
from foundation_core.model.initialize import random_stream
from foundation_core.model.layout import PADDING, Layout
from foundation_core.model.stems import TokenStem
from foundation_core.model.transformer import Model


@torch.inference_mode()
def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    end_token: int | None = None,
    seed: int = 0,
) -> list[list[int]]:
    """The tokens that follow each prompt, at most `max_tokens`; an end token, where reached, is the last one.

    A row depends on its prompt, its number and the seed, not on the other rows. A prompt that leaves no room for
    `max_tokens` in the model's context is read from its end.

    Args:
        temperature: 0 takes the most probable token; above, the logits are divided by it.
        top_k: how many of the most probable tokens are drawn from. None: all.

    Raises:
        ConfigError: a prompt is empty, or the context cannot hold `max_tokens` and a prompt.
    """
    if not prompts:
        return []
    device = next(model.parameters()).device
    tokens_BT, layout = _left_padded(_fitting(model, prompts, max_tokens), device)
    draws = [torch.rand(max_tokens, generator=random_stream(seed, f"row {row}")) for row in range(len(prompts))]
    draw_BT = torch.stack(draws).to(device)
    cache = Cache(len(model.trunk.blocks), tokens_BT.shape[1] + max_tokens)
    closed_B = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    written: list[Tensor] = []
    with _evaluating(model):
        for step in range(max_tokens):
            logits_BV = model(tokens_BT, layout, cache, finish=_of_last_token)
            tokens_BT = _choose(logits_BV.float(), temperature, top_k, draw_BT[:, step])[:, None]
            layout = Layout(layout.position[:, -1:] + 1, torch.zeros_like(tokens_BT))
            written.append(tokens_BT)
            if end_token is not None:
                closed_B |= tokens_BT[:, 0] == end_token
                if closed_B.all():
                    break
    rows: list[list[int]] = torch.cat(written, dim=1).tolist()
    return [row[: row.index(end_token) + 1] if end_token in row else row for row in rows]


def _fitting(model: Model, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    context_tokens = cast(TokenStem, model.stem).context_tokens
    if not 1 <= max_tokens < context_tokens:
        raise ConfigError(
            f"{max_tokens} tokens were asked of a model that reads {context_tokens} at once",
            allowed=f"1 to {context_tokens - 1}, so that a prompt has room too",
        )
    if not all(prompts):
        raise ConfigError("a prompt has no token", fix="begin with the token that closes a document")
    return [list(prompt[-(context_tokens - max_tokens) :]) for prompt in prompts]


def _left_padded(prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Layout]:
    """Prompts that end in the same column, so that every row's next token has the same place in the cache."""
    longest = max(len(prompt) for prompt in prompts)
    missing_B = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    tokens_BT = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    position_BT = torch.arange(longest, device=device) - missing_B[:, None]
    segment_BT = torch.where(position_BT < 0, PADDING, 0)
    return tokens_BT, Layout(position_BT.clamp(min=0), segment_BT)


def _of_last_token(head: nn.Module, x_BTD: Tensor, layout: Layout) -> Tensor:
    logits_BTV: Tensor = head(x_BTD[:, -1:], layout)
    return logits_BTV[:, 0]


def _choose(logits_BV: Tensor, temperature: float, top_k: int | None, draw_B: Tensor) -> Tensor:
    """A token per row: where a number drawn from 0 to 1 falls among the candidates' shares, the largest first."""
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    candidates = logits_BV.shape[-1] if top_k is None else min(top_k, logits_BV.shape[-1])
    best, token = logits_BV.topk(candidates, dim=-1)
    reached = (best / temperature).softmax(dim=-1).cumsum(dim=-1)
    rank_B = (reached < draw_B[:, None]).sum(dim=-1).clamp(max=candidates - 1)  # rounding may end the sum below 1
    return token.take_along_dim(rank_B[:, None], dim=-1)[:, 0]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
