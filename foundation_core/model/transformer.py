"""The trunk, which knows neither tokens nor logits, and the model: a stem, a trunk, a head."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from foundation_core.model.attention import Cache, Reading
from foundation_core.model.block import Block
from foundation_core.model.layout import Layout, attention_mask
from foundation_core.model.positions import Rotary

Finish = Callable[[nn.Module, Tensor, Layout], Tensor]
"""(head, x_BTD, layout) -> what a forward returns in place of the head's output for every token."""


class Transformer(nn.Module):
    """Blocks on one residual stream.

    Args:
        norm: of the stream's end; an identity where each block already normalises it.
        causal: whether a token reads only what does not come after it.
        rotary: turns queries and keys by their positions; None where the stem has added positions already.
    """

    def __init__(self, blocks: Iterable[Block], norm: nn.Module, *, causal: bool, rotary: Rotary | None = None) -> None:
        super().__init__()
        self.blocks, self.norm = nn.ModuleList(blocks), norm
        self.causal, self.rotary = causal, rotary

    def forward(self, x_BTD: Tensor, layout: Layout, cache: Cache | None = None) -> Tensor:
        """(B, T, D): what each token has become.

        Args:
            cache: what was read before; these tokens follow it, and are added to it.
        """
        keys = layout if cache is None else cache.extend(layout)
        stores = [None] * len(self.blocks) if cache is None else cache.stores
        rotation = None if self.rotary is None else self.rotary(layout.position)
        reading = Reading(attention_mask(layout, keys, causal=self.causal), rotation)
        for block, store in zip(self.blocks, stores, strict=True):
            x_BTD = block(x_BTD, reading, store)
        x_BTD = self.norm(x_BTD)
        return x_BTD


class Model(nn.Module):
    """Raw input -> stem -> trunk -> head -> output.

    Args:
        stem: (input, layout or None, tokens read before) -> (x_BTD, layout).
        head: (x_BTD, layout) -> output.
    """

    def __init__(self, stem: nn.Module, trunk: Transformer, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.trunk, self.head = stem, trunk, head

    def forward(
        self, inputs: Any, layout: Layout | None = None, cache: Cache | None = None, finish: Finish | None = None
    ) -> Tensor:
        """The head's output, or what `finish` makes of the head and the trunk's output.

        Args:
            layout: who reads whom. None: each row is one document.
            finish: lets a caller ask the head for less than all: a loss in pieces, the last token alone. It runs inside
                the forward, so that an engine which wraps the model sees one call.
        """
        x_BTD, layout = self.stem(inputs, layout, 0 if cache is None else cache.length_tokens)
        x_BTD = self.trunk(x_BTD, layout, cache)
        output: Tensor = self.head(x_BTD, layout) if finish is None else finish(self.head, x_BTD, layout)
        return output
