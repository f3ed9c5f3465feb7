"""Beam search: the row whose tokens are together the most probable, as far as a few candidates at a time find it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foundation_core.errors import ConfigError
from foundation_core.generation.generate import NEVER, evaluating, fitting, left_padded
from foundation_core.generation.packed import packed
from foundation_core.generation.sampling import Stop
from foundation_core.generation.writers import following, of_last_token
from foundation_core.model.attention import Cache, Memory
from foundation_core.model.transformer import Model


class Hypothesis(NamedTuple):
    """A row that was written.

    Args:
        tokens: what ends it, where reached, is the last one.
        score: sum of the tokens' log-probabilities in nats, over their number to the power of the length penalty.
    """

    tokens: list[int]
    score: float


@torch.inference_mode()
def beam_search(
    model: Model,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    beams: int,
    stop: Stop = NEVER,
    length_penalty: float = 1.0,
    memory: Memory | None = None,
    prefix: bool = False,
) -> list[Hypothesis]:
    """The best hypothesis that was found for each prompt. One beam is greedy.

    A hypothesis that ends leaves the beam, which is then narrower by one.

    Args:
        model: for an encoder-decoder, its `decoder`.
        stop: what ends a hypothesis; it is kept.
        length_penalty: 0 adds log-probabilities up, so that short rows win; 1 takes their mean.
        memory: what an encoder made of each prompt's source.
        prefix: whether a prompt's tokens read each other both ways, as a prefix language model learned them.

    Raises:
        ConfigError: no beam, a prompt is empty, or the context cannot hold `max_tokens` and a prompt.

    Source: Sutskever et al. 2014, section 3.2.
    """
    if beams < 1:
        raise ConfigError(f"beams={beams}", allowed="1 or more")
    if not prompts:
        return []
    R, K, device = len(prompts), beams, next(model.parameters()).device
    tokens_BT, layout = left_padded(fitting(model, prompts, max_tokens), device, prefix=prefix)
    row_B = torch.arange(R, device=device).repeat_interleave(K)
    tokens_BT, layout = tokens_BT[row_B], layout.select(row_B)
    memory = None if memory is None else Memory(memory.x[row_B], memory.layout.select(row_B))
    cache = Cache(len(model.trunk.blocks), tokens_BT.shape[1] + max_tokens)
    score_RK = torch.full((R, K), float("-inf"), device=device)
    score_RK[:, 0] = 0.0  # all beams begin alike: one of them counts
    written_BT = tokens_BT[:, :0]
    best = [Hypothesis([], float("-inf"))] * R
    with evaluating(model):
        writer = packed(model, R * K)
        for length in range(1, max_tokens + 1):
            logits_BV = writer(tokens_BT, layout, cache, of_last_token, memory)
            digits = torch.promote_types(logits_BV.dtype, torch.float32)
            score_RK, parent_B, tokens_BT = _step(score_RK, logits_BV.log_softmax(dim=-1, dtype=digits))
            cache.select(parent_B)
            layout = following(layout)
            written_BT = torch.cat([written_BT[parent_B], tokens_BT], dim=1)
            ended_RK = _ended(stop, written_BT).view(R, K) | (length == max_tokens)
            best = _better(best, score_RK / length**length_penalty, ended_RK, written_BT)
            ended_RK |= _hopeless(score_RK, best, (length, max_tokens), length_penalty)
            score_RK = score_RK.masked_fill(ended_RK, float("-inf"))
            if score_RK.isinf().all():
                break
    return best


def _ended(stop: Stop, written_BT: Tensor) -> Tensor:
    """(B,) bool: which rows end with their newest token."""
    if not stop.texts:
        newest_B = written_BT[:, -1]
        return torch.zeros_like(newest_B).bool() if stop.end_token is None else newest_B == stop.end_token
    return torch.tensor([stop.ends(row) for row in written_BT.tolist()], device=written_BT.device)


def _step(score_RK: Tensor, nats_BV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (R, K) of the best continuations, the rows (B,) that they continue, and their tokens (B, 1)."""
    (R, K), V = score_RK.shape, nats_BV.shape[-1]
    total_RN = (score_RK.view(-1, 1) + nats_BV).view(R, K * V)
    score_RK, choice_RK = total_RN.topk(K, dim=-1)
    parent_RK = choice_RK // V + torch.arange(R, device=score_RK.device)[:, None] * K
    return score_RK, parent_RK.flatten(), (choice_RK % V).view(-1, 1)


def _better(best: list[Hypothesis], score_RK: Tensor, ended_RK: Tensor, written_BT: Tensor) -> list[Hypothesis]:
    """The best of each row, with those that ended just now."""
    found, beam = score_RK.masked_fill(~ended_RK, float("-inf")).max(dim=-1)
    K, better = score_RK.shape[1], list(best)
    for row, (score, place) in enumerate(zip(found.tolist(), beam.tolist(), strict=True)):
        if score > best[row].score:
            better[row] = Hypothesis(written_BT[row * K + place].tolist(), score)
    return better


def _hopeless(score_RK: Tensor, best: list[Hypothesis], lengths: tuple[int, int], length_penalty: float) -> Tensor:
    """Which beams cannot become better than what their row has, however probable their next tokens are."""
    highest_RK = torch.maximum(*(score_RK / length**length_penalty for length in lengths))
    return highest_RK <= torch.tensor([[hypothesis.score] for hypothesis in best], device=score_RK.device)
