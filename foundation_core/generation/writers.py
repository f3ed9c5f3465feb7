"""Who computes the logits of the next tokens: the model itself, laid out for it, or a compiled step.

prompts ──> Plain: model ──> logits ──> token ──> model ──> ...
prompts ──> Compiled: model ──> logits, keys and values ──> token ──> compiled step ──> ...
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from foundation_core.errors import SetupError
from foundation_core.generation.packed import packed
from foundation_core.model.attention import Cache, Memory
from foundation_core.model.layout import Layout
from foundation_core.model.transformer import Model

if TYPE_CHECKING:
    from foundation_core.generation.makes import Plan

MOST_ROWS = 8
"""Beyond it, products of torch's libraries are faster than those of a compiled step."""
WORTH_LOADING, WORTH_COMPILING = 1_250, 40_000
"""Blocks computed for new tokens from which on a compiled step saves as much time as it takes to load it from the disk,
or to compile it: about 0.5 and 15 s, at 0.4 ms a block."""
_written = Counter[torch.dtype]()
"""Blocks that were computed for new tokens in this process, by the models' number format."""


class Writer(Protocol):
    """Goes on with rows whose prompts have been read."""

    def write(self, token_B: Tensor, going: Sequence[bool]) -> Tensor:
        """(B, V) float32 logits after one token more in each row that still goes on; the others' mean nothing."""

    def close(self) -> None:
        """Gives back what it holds."""


def begin(
    model: Model, tokens_BT: Tensor, layout: Layout, new_tokens: int, memory: Memory | None = None
) -> tuple[Tensor, Writer]:
    """(B, V) float32 logits after the prompts, and who goes on from there.

    Args:
        model: in evaluation mode.
        layout: of the prompts, whose last tokens are in one column.
        new_tokens: that will be written at most.
    """
    rows, length = tokens_BT.shape
    plan = None if memory is not None or rows > MOST_ROWS else _plan_if_worth_it(model, new_tokens)
    if plan is not None:
        from foundation_core.generation.compiled import Compiled  # machine code, which few texts are worth

        cache = Cache(len(model.trunk.blocks), length)
        logits_BV = model(tokens_BT, layout, cache, of_last_token).float()
        return logits_BV, Compiled(model, plan, cache, layout, new_tokens)
    plain = Plain(model, rows, length + new_tokens, memory)
    return plain.read(tokens_BT, layout), plain


def _plan_if_worth_it(model: Model, new_tokens: int) -> Plan | None:
    """How a compiled step writes with the model; None where it cannot, or would take longer to get than it saves.

    What will be written is known, and what comes after it is not: it is thought to be as much as there was before.
    """
    weight = next(model.parameters())
    if weight.device.type != "cpu":
        return None
    _written[weight.dtype] += new_tokens * len(model.trunk.blocks)
    if _written[weight.dtype] < WORTH_LOADING:
        return None
    try:
        from foundation_core.generation.makes import is_on_disk, plan_of
    except (ImportError, SetupError, RuntimeError):  # numba is not installed, or may not keep machine code anywhere
        return None
    if _written[weight.dtype] < WORTH_COMPILING and not is_on_disk(weight.dtype):
        return None
    return plan_of(model)


class Plain:
    """Writes with the model as it is, whatever it is made of."""

    def __init__(self, model: Model, rows: int, tokens: int, memory: Memory | None) -> None:
        self._model, self._memory = packed(model, rows), memory
        self._cache = Cache(len(model.trunk.blocks), tokens)

    def read(self, tokens_BT: Tensor, layout: Layout) -> Tensor:
        """(B, V) float32 logits after these tokens."""
        self._layout = layout
        logits_BV: Tensor = self._model(tokens_BT, layout, self._cache, of_last_token, self._memory)
        return logits_BV.float()

    def write(self, token_B: Tensor, going: Sequence[bool]) -> Tensor:
        """(B, V) float32 logits after one token more in each row."""
        return self.read(token_B[:, None], following(self._layout))

    def close(self) -> None:
        """Nothing is held that is not memory."""


def following(layout: Layout) -> Layout:
    """The layout of the one token that comes next in each row."""
    position_B1 = layout.position[:, -1:] + 1
    segment_B1 = None if layout.segment is None else torch.zeros_like(position_B1)
    return Layout(position_B1, segment_B1, None if layout.order is None else layout.order[:, -1:] + 1)


def of_last_token(head: nn.Module, x_BTD: Tensor, layout: Layout) -> Tensor:
    """(B, V) logits after the last token of each row."""
    logits_BTV: Tensor = head(x_BTD[:, -1:], layout)
    return logits_BTV[:, 0]
