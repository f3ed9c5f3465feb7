"""Text continued, token by token: prompts of any lengths in one batch, each token computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from foundation_core.errors import ConfigError
from foundation_core.generation.sampling import Sampling, Stop
from foundation_core.generation.writers import begin
from foundation_core.model.attention import Memory
from foundation_core.model.initialize import random_stream
from foundation_core.model.layout import PADDING, Layout
from foundation_core.model.stems import TokenStem
from foundation_core.model.transformer import EncoderDecoder, Model

_USUAL, NEVER = Sampling(), Stop()


def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    sampling: Sampling = _USUAL,
    stop: Stop = NEVER,
    seed: int = 0,
    memory: Memory | None = None,
    prefix: bool = False,
) -> list[list[int]]:
    """The tokens that follow each prompt, at most `max_tokens`; what ends a row, where reached, is its last one.

    A row depends on its prompt, its number and the seed, not on the other rows. A prompt that leaves no room for
    `max_tokens` in the model's context is read from its end.

    Args:
        model: for an encoder-decoder, its `decoder`; prompts are then the token that its texts start with.
        memory: what an encoder made of each row's source (`remember`).
        prefix: whether a prompt's tokens read each other both ways, as a prefix language model learned them.

    Raises:
        ConfigError: a prompt is empty, or the context cannot hold `max_tokens` and a prompt.
    """
    rows: list[list[int]] = [[] for _ in prompts]
    for tokens in stream(model, prompts, max_tokens, sampling, stop, seed, memory, prefix):
        for row, token in zip(rows, tokens, strict=True):
            if token is not None:
                row.append(token)
    return rows


@torch.inference_mode()
def stream(
    model: Model,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    sampling: Sampling = _USUAL,
    stop: Stop = NEVER,
    seed: int = 0,
    memory: Memory | None = None,
    prefix: bool = False,
) -> Iterator[list[int | None]]:
    """The same token by token: at each step the next one of every row, None for a row that has ended."""
    if not prompts:
        return
    device = next(model.parameters()).device
    tokens_BT, layout = left_padded(fitting(model, prompts, max_tokens), device, prefix=prefix)
    draws = [torch.rand(max_tokens, generator=random_stream(seed, f"row {row}")) for row in range(len(prompts))]
    draw_BT = torch.stack(draws).to(device)
    seen_BV: Tensor | None = None
    written: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    with evaluating(model):
        logits_BV, writer = begin(model, tokens_BT, layout, max_tokens, memory)
        try:
            for step in range(max_tokens):
                if sampling.repetition_penalty != 1:
                    seen_BV = _with(seen_BV, tokens_BT, layout if step == 0 else None, logits_BV.shape[-1])
                tokens_BT = sampling.choose(logits_BV, draw_BT[:, step], seen_BV)[:, None]
                chosen = tokens_BT[:, 0].tolist()
                yield [None if over else token for token, over in zip(chosen, ended, strict=True)]
                for row, token in enumerate(chosen):
                    if not ended[row]:
                        written[row].append(token)
                        ended[row] = stop.ends(written[row])
                if all(ended):
                    return
                if step + 1 < max_tokens:
                    logits_BV = writer.write(tokens_BT[:, 0], [not over for over in ended])
        finally:
            writer.close()


@torch.inference_mode()
def remember(model: EncoderDecoder, source: Any, layout: Layout | None = None) -> Memory:
    """What the encoder makes of a batch of sources, to be read by its decoder: computed once."""
    with evaluating(model):
        return model.encode(source, layout)


def fitting(model: Model, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """The prompts as far as they leave room for `max_tokens`.

    Raises:
        ConfigError: a prompt is empty, or the context cannot hold `max_tokens` and a prompt.
    """
    context_tokens = cast(TokenStem, model.stem).context_tokens
    if not 1 <= max_tokens < context_tokens:
        raise ConfigError(
            f"{max_tokens} tokens were asked of a model that reads {context_tokens} at once",
            allowed=f"1 to {context_tokens - 1}, so that a prompt has room too",
        )
    if not all(prompts):
        raise ConfigError("a prompt has no token", fix="begin with the token that closes a document")
    return [list(prompt[-(context_tokens - max_tokens) :]) for prompt in prompts]


def left_padded(prompts: list[list[int]], device: torch.device, *, prefix: bool) -> tuple[Tensor, Layout]:
    """Prompts that end in the same column, so that every row's next token has the same place in the cache.

    Args:
        prefix: whether a prompt's tokens read each other both ways.
    """
    longest = max(len(prompt) for prompt in prompts)
    missing_B = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    tokens_BT = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    position_BT = torch.arange(longest, device=device) - missing_B[:, None]
    # without padding, and without a prefix, the kernels need no mask
    segment_BT = torch.where(position_BT < 0, PADDING, 0) if missing_B.any() else None
    return tokens_BT, Layout(position_BT.clamp(min=0), segment_BT, torch.zeros_like(position_BT) if prefix else None)


def _with(seen_BV: Tensor | None, tokens_BT: Tensor, layout: Layout | None, vocabulary: int) -> Tensor:
    """Which tokens each row holds, these included; padding, which a layout tells of, is none."""
    there_BT = torch.ones_like(tokens_BT)
    if layout is not None and layout.segment is not None:
        there_BT = (layout.segment != PADDING).long()
    count_BV = tokens_BT.new_zeros(len(tokens_BT), vocabulary).scatter_add_(1, tokens_BT, there_BT)
    return count_BV > 0 if seen_BV is None else seen_BV | (count_BV > 0)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
