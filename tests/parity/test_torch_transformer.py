"""Our parts against torch.nn.MultiheadAttention, TransformerDecoder and nn.Transformer with the same weights, float32.

Measured worst difference of the outputs, which are of size 3 to 8, with AVX2 or without: none, to the bit, of decoder
and transformer; 2.0e-6 of nn.MultiheadAttention, which returns its weights and so takes other kernels. The tolerance is
four times that; the smallest damage below moves the outputs by 1.1.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foundation_core.interop.mapping import Table, renamed, to_ours, to_theirs
from foundation_core.model.attention import Attention, Memory, Reading
from foundation_core.model.block import PostNorm, PreNorm
from foundation_core.model.layout import PADDING, Layout, attention_mask, memory_mask
from foundation_core.model.transformer import EncoderDecoder, Model
from tests.support.parity import (
    TORCH_END,
    plain_feed,
    stack,
    torch_attention,
    torch_layers,
    with_weights_that_matter,
)

D, HEADS, HIDDEN, DEPTH, ROWS, S, T = 32, 4, 80, 2, 3, 14, 9
TOLERANCE = 8e-6
GENERATOR = torch.Generator().manual_seed(0)
SOURCE, TARGET = torch.randn(ROWS, S, D, generator=GENERATOR), torch.randn(ROWS, T, D, generator=GENERATOR)
SOURCE_THERE = torch.arange(S) < torch.tensor([[S], [8], [1]])
TARGET_THERE = torch.arange(T) < torch.tensor([[T], [4], [7]])
NORM = partial(nn.LayerNorm, D)


def padded(there: Tensor) -> Layout:
    place = torch.arange(there.shape[1]).expand(len(there), -1)
    return Layout(place, torch.where(there, 0, PADDING))


SOURCE_LAYOUT, TARGET_LAYOUT = padded(SOURCE_THERE), padded(TARGET_THERE)
LATER = torch.ones(T, T, dtype=torch.bool).triu(1)
"""What torch may not read: True means no."""


@pytest.mark.parametrize("case", ["self, causal and padded", "across, padded"])
@pytest.mark.parametrize("damage", ["none", "no mask"])
def test_attention_equals_multihead_attention_and_the_comparison_notices_a_missing_mask(case: str, damage: str):
    theirs = with_weights_that_matter(nn.MultiheadAttention(D, HEADS, batch_first=True))
    ours = Attention(D, HEADS, bias=True)
    ours.load_state_dict(to_ours(theirs.state_dict(), Table(torch_attention("", ""))))
    if case == "across, padded":
        expected, _ = theirs(TARGET, SOURCE, SOURCE, key_padding_mask=~SOURCE_THERE)
        seen = Layout(SOURCE_LAYOUT.position) if damage == "no mask" else SOURCE_LAYOUT
        query = Layout(TARGET_LAYOUT.position) if damage == "no mask" else TARGET_LAYOUT
        found = ours(TARGET, Reading(memory_mask(query, seen), memory=SOURCE))
    else:
        expected, _ = theirs(TARGET, TARGET, TARGET, key_padding_mask=~TARGET_THERE, attn_mask=LATER)
        causal = damage != "no mask"
        found = ours(TARGET, Reading(attention_mask(TARGET_LAYOUT, TARGET_LAYOUT, causal=causal)))
    difference = (found - expected)[TARGET_THERE].abs().max()
    assert difference < TOLERANCE if damage == "none" else difference > 0.5


def side(pre_norm: bool, **trunk: Any) -> Any:
    usual = {"residual": PreNorm if pre_norm else PostNorm, "end": NORM}
    return stack(D, HEADS, DEPTH, plain_feed(D, HIDDEN, nn.ReLU), NORM, **{**usual, **trunk})


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("damage", ["none", "causal mask", "padding of the memory", "weights"])
def test_a_trunk_that_reads_a_memory_equals_torchs_decoder_and_the_comparison_notices(pre_norm: bool, damage: str):
    layer = nn.TransformerDecoderLayer(D, HEADS, HIDDEN, dropout=0.0, batch_first=True, norm_first=pre_norm)
    theirs = with_weights_that_matter(nn.TransformerDecoder(layer, DEPTH, NORM()))
    ours = side(pre_norm, causal=damage != "causal mask", reads=True)
    state = to_ours(theirs.state_dict(), Table((*torch_layers("layers", "blocks", feed_norm=3), *TORCH_END)))
    if damage == "weights":
        query, key = "blocks.1.read.branch.query.weight", "blocks.1.read.branch.key.weight"
        state[query], state[key] = state[key], state[query]
    ours.load_state_dict(state)
    expected = theirs(
        TARGET, SOURCE, tgt_mask=LATER, tgt_key_padding_mask=~TARGET_THERE, memory_key_padding_mask=~SOURCE_THERE
    )
    blind = damage == "padding of the memory"
    found = ours(TARGET, TARGET_LAYOUT, memory=Memory(SOURCE, UNPADDED if blind else SOURCE_LAYOUT))
    difference = (found - expected)[TARGET_THERE].abs().max()
    assert difference < TOLERANCE if damage == "none" else difference > 0.5


UNPADDED = Layout(SOURCE_LAYOUT.position)


class Bare(nn.Module):
    """A stem that takes vectors as they are."""

    def forward(self, x: Tensor, layout: Layout | None = None, start: int = 0) -> tuple[Tensor, Layout | None]:
        return x, layout


TORCH_TRANSFORMER = Table(
    (
        *torch_layers("encoder.layers", "trunk.blocks", feed_norm=2),
        *torch_layers("decoder.layers", "decoder.trunk.blocks", feed_norm=3),
        *renamed("", "", {"encoder.norm": "trunk.norm", "decoder.norm": "decoder.trunk.norm"}),
    )
)


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("damage", ["none", "padding of the source", "order"])
def test_an_encoder_decoder_equals_torchs_transformer_and_the_comparison_notices(pre_norm: bool, damage: str):
    theirs = with_weights_that_matter(
        nn.Transformer(D, HEADS, DEPTH, DEPTH, HIDDEN, dropout=0.0, batch_first=True, norm_first=pre_norm)
    )
    decoder = Model(Bare(), side(pre_norm, causal=damage != "order", reads=True), nn.Identity())
    ours = EncoderDecoder(Bare(), side(pre_norm), decoder)
    state = to_ours(theirs.state_dict(), TORCH_TRANSFORMER)
    ours.load_state_dict(state)
    back = to_theirs(state, TORCH_TRANSFORMER)
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[name], weights) for name, weights in theirs.state_dict().items())
    expected = theirs(
        SOURCE, TARGET, tgt_mask=LATER, src_key_padding_mask=~SOURCE_THERE, tgt_key_padding_mask=~TARGET_THERE,
        memory_key_padding_mask=~SOURCE_THERE,
    )  # fmt: skip
    seen = UNPADDED if damage == "padding of the source" else SOURCE_LAYOUT
    found = ours(SOURCE, TARGET, seen, TARGET_LAYOUT, finish=lambda head, x, layout: x)
    difference = (found - expected)[TARGET_THERE].abs().max()
    assert difference < TOLERANCE if damage == "none" else difference > 0.5
