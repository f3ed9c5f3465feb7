"""The trunk, which knows neither tokens nor logits, and the models: stems, trunks and heads in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_core.model.attention import Cache, Memory, Reading
from foundation_core.model.block import Block
from foundation_core.model.layout import Layout, attention_mask, memory_mask, sequential
from foundation_core.model.positions import Rotary

Finish = Callable[[nn.Module, Tensor, Layout], Tensor]
"""(head, x_BTD, layout) -> what a forward returns in place of the head's output for every token."""


class Transformer(nn.Module):
    """Blocks on one residual stream.

    Args:
        norm: of the stream's end; an identity where each block already normalises it.
        causal: whether a token reads only what does not come after it.
        rotary: turns queries and keys by their positions; None where the stem has added positions already.
        score_bias: (query positions, key positions) -> what is added to the scores (ALiBi, RelativeBias).
        dropout: probability that a feature of what enters is dropped in training: of embeddings and positions.
    """

    def __init__(
        self,
        blocks: Iterable[Block],
        norm: nn.Module,
        *,
        causal: bool,
        rotary: Rotary | None = None,
        score_bias: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.blocks, self.norm, self.dropout = nn.ModuleList(blocks), norm, nn.Dropout(dropout)
        self.causal, self.rotary, self.score_bias = causal, rotary, score_bias

    def forward(
        self, x_BTD: Tensor, layout: Layout, cache: Cache | None = None, memory: Memory | None = None
    ) -> Tensor:
        """(B, T, D): what each token has become.

        Args:
            cache: what was read before; these tokens follow it, and are added to it.
            memory: what the blocks read beside the row itself.
        """
        keys = layout if cache is None else cache.extend(layout)
        nothing = [None] * len(self.blocks)
        stores, memory_stores = (nothing, nothing) if cache is None else (cache.stores, cache.memory_stores)
        mask = attention_mask(layout, keys, causal=self.causal)
        if self.score_bias is not None:
            mask = mask.with_bias(self.score_bias(layout.position, keys.position))
        own = Reading(mask, None if self.rotary is None else self.rotary(layout.position))
        across = None if memory is None else Reading(memory_mask(layout, memory.layout), memory=memory.x)
        x_BTD = self.dropout(x_BTD)
        for block, store, memory_store in zip(self.blocks, stores, memory_stores, strict=True):
            x_BTD = block(x_BTD, own, store, across, memory_store)
        x_BTD = self.norm(x_BTD)
        return x_BTD


class Reader(nn.Module):
    """Any model: a stem and a trunk that read, which a task model can take over, and whatever its family adds."""

    stem: nn.Module
    trunk: Transformer


class Model(Reader):
    """Raw input -> stem -> trunk -> head -> output.

    Args:
        stem: (input, layout or None, tokens read before) -> (x_BTD, layout).
        head: (x_BTD, layout) -> output.
    """

    def __init__(self, stem: nn.Module, trunk: Transformer, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.trunk, self.head = stem, trunk, head

    def forward(
        self,
        inputs: Any,
        layout: Layout | None = None,
        cache: Cache | None = None,
        finish: Finish | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """The head's output, or what `finish` makes of the head and the trunk's output.

        Args:
            layout: who reads whom. None: each row is one document.
            finish: lets a caller ask the head for less than all: a loss in pieces, the last token alone. It runs inside
                the forward, so that an engine which wraps the model sees one call.
            memory: what a trunk that reads across is to read.
        """
        if cache is None:
            x_BTD, layout = self.stem(inputs, layout)
        else:
            x_BTD, layout = self.stem(cache.read(inputs), layout, cache.length_tokens)
        x_BTD = self.trunk(x_BTD, layout, cache, memory)
        output: Tensor = self.head(x_BTD, layout) if finish is None else finish(self.head, x_BTD, layout)
        return output


class EncoderDecoder(Reader):
    """One row is read whole; another is written, token by token, by a model that reads it.

        source ──> stem ──> trunk ──> memory ─┐
        inputs ──> decoder: stem ──> trunk <──┘ ──> head ──> logits

    Args:
        decoder: a model whose blocks read a memory.

    Source: Vaswani et al. 2017, figure 1.
    """

    def __init__(self, stem: nn.Module, trunk: Transformer, decoder: Model) -> None:
        super().__init__()
        self.stem, self.trunk, self.decoder = stem, trunk, decoder

    def encode(self, source: Any, layout: Layout | None = None) -> Memory:
        """What the decoder reads: computed once, however many tokens are written."""
        x_BSD, layout = self.stem(source, layout)
        return Memory(self.trunk(x_BSD, layout), layout)

    def forward(
        self,
        source: Any,
        inputs: Any,
        source_layout: Layout | None = None,
        layout: Layout | None = None,
        finish: Finish | None = None,
    ) -> Tensor:
        """The decoder's output for `inputs`, or what `finish` makes of its head and trunk."""
        output: Tensor = self.decoder(inputs, layout, None, finish, self.encode(source, source_layout))
        return output


class PatchDecoder(nn.Module):
    """Puts what was seen back in its places, learned tokens in the others, and lets them read each other.

    Args:
        source_width: features that come in.
        places: how many there are, visible or not.
        place: adds positions to the vectors.
    """

    def __init__(
        self, source_width: int, width: int, places: int, trunk: Transformer, place: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(source_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.places, self.place, self.trunk = places, place, trunk

    def forward(self, x_BVD: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """(B, P, width) and the layout of all places.

        Args:
            layout: its positions say where each of the visible ones belongs.
        """
        seen_BVD = self.enter(x_BVD)
        masked_BPD = self.mask_token.expand(len(seen_BVD), self.places, -1).to(seen_BVD.dtype)
        x_BPD = masked_BPD.scatter(1, layout.position[..., None].expand_as(seen_BVD), seen_BVD)
        whole = sequential(x_BPD)
        if self.place is not None:
            x_BPD = x_BPD + self.place(whole.position).to(x_BPD.dtype)
        return self.trunk(x_BPD, whole), whole


class MaskedAutoencoder(Reader):
    """The visible patches are read; a light decoder answers for all.

    Source: He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, figure 1.
    """

    def __init__(self, stem: nn.Module, trunk: Transformer, decoder: PatchDecoder, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.trunk, self.decoder, self.head = stem, trunk, decoder, head

    def forward(self, values: Tensor, visible_BP: Tensor, finish: Finish | None = None) -> Tensor:
        """The head's output for every place, or what `finish` makes of the head and the decoder's output.

        Args:
            values: (B, C, H, W).
            visible_BP: numbers of the patches that are read.
        """
        x_BVD, layout = self.stem(values, visible_BP=visible_BP)
        x_BPD, layout = self.decoder(self.trunk(x_BVD, layout), layout)
        output: Tensor = self.head(x_BPD, layout) if finish is None else finish(self.head, x_BPD, layout)
        return output


class DualEncoder(Reader):
    """Two kinds of rows as points on one sphere, where those that belong together lie close.

    Args:
        head: of the values; one vector a row.
        text: the model of the other kind; one vector of the same width a row.

    Source: Radford et al. 2021, CLIP, figure 3.
    """

    START, HIGHEST = log(1 / 0.07), log(100)

    def __init__(self, stem: nn.Module, trunk: Transformer, head: nn.Module, text: Model) -> None:
        super().__init__()
        self.stem, self.trunk, self.head, self.text = stem, trunk, head, text
        self.log_scale = nn.Parameter(torch.full((1,), self.START))  # a row of one: DeepSpeed sends no bare number

    def forward(self, values: Tensor, tokens: Tensor, layout: Layout | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, W) unit vectors of the values and of the texts, and the scale that their products are multiplied by."""
        # The value stops at the highest and the gradient does not: a scale that went too far finds its way back.
        above = (self.log_scale - self.HIGHEST).clamp(min=0).detach()
        return self.embed_values(values), self.embed_texts(tokens, layout), (self.log_scale - above).exp()

    def embed_values(self, values: Tensor, layout: Layout | None = None) -> Tensor:
        """(B, W) unit vectors."""
        x_BTD, layout = self.stem(values, layout)
        return F.normalize(self.head(self.trunk(x_BTD, layout), layout), dim=-1)

    def embed_texts(self, tokens: Tensor, layout: Layout | None = None) -> Tensor:
        """(B, W) unit vectors."""
        return F.normalize(self.text(tokens, layout), dim=-1)
