"""Our parts against torch.nn.TransformerEncoder with the same weights, float32.

Measured worst difference of the outputs, which are of size 1 to 4: none, to the bit. The tolerance is a few roundings,
for machines whose kernels differ; the smallest damage below moves the outputs by 0.3.
"""

import pytest
import torch
from torch import Tensor, nn

from foundation_core.interop.mapping import Table, to_ours
from foundation_core.model.attention import Attention
from foundation_core.model.block import Block, FeedForward, PostNorm, PreNorm, Residual
from foundation_core.model.layout import PADDING, Layout
from foundation_core.model.transformer import Transformer
from tests.support.parity import TORCH_END, torch_layers

WIDTH, HEADS, HIDDEN, DEPTH, ROWS, TOKENS = 32, 4, 80, 3, 3, 20
TOLERANCE = 2e-6
LENGTHS = torch.tensor([20, 13, 1])
THERE = torch.arange(TOKENS) < LENGTHS[:, None]
PADDED = Layout(torch.arange(TOKENS).expand(ROWS, -1), torch.where(THERE, 0, PADDING))
X = torch.randn(ROWS, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))


def theirs(pre_norm: bool) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, HIDDEN, dropout=0.0, activation="gelu", batch_first=True, norm_first=pre_norm
    )
    norm = nn.LayerNorm(WIDTH) if pre_norm else None
    encoder = nn.TransformerEncoder(layer, DEPTH, norm, enable_nested_tensor=False)
    for name, parameter in encoder.named_parameters():  # biases and gains that matter, and layers that differ
        nn.init.normal_(parameter, mean=1.0 if name.endswith(("norm1.weight", "norm2.weight")) else 0.0, std=0.3)
    return encoder


def ours(pre_norm: bool, causal: bool) -> Transformer:
    residual: type[Residual] = PreNorm if pre_norm else PostNorm

    def block() -> Block:
        mix = residual(nn.LayerNorm(WIDTH), Attention(WIDTH, HEADS, bias=True))
        return Block(mix, residual(nn.LayerNorm(WIDTH), FeedForward(WIDTH, HIDDEN, nn.GELU(), bias=True)))

    norm = nn.LayerNorm(WIDTH) if pre_norm else nn.Identity()
    return Transformer((block() for _ in range(DEPTH)), norm, causal=causal)


def translated(encoder: nn.TransformerEncoder) -> dict[str, Tensor]:
    return to_ours(encoder.state_dict(), Table((*torch_layers("layers", "blocks", feed_norm=2), *TORCH_END)))


def difference(pre_norm: bool, causal: bool, layout: Layout, damage: str = "") -> float:
    """The worst difference of the outputs, at the tokens that are there."""
    encoder, trunk = theirs(pre_norm), ours(pre_norm, causal=causal and damage != "causal mask")
    state = translated(encoder)
    if damage == "weights":
        query, key = "blocks.1.mix.branch.query.weight", "blocks.1.mix.branch.key.weight"
        state[query], state[key] = state[key], state[query]
    trunk.load_state_dict(state)
    mask = nn.Transformer.generate_square_subsequent_mask(TOKENS) if causal else None
    padding = None if layout.segment is None else ~THERE
    blind = Layout(layout.position) if damage == "padding mask" else layout
    expected = encoder(X, mask=None if mask is None else mask.isinf(), src_key_padding_mask=padding, is_causal=causal)
    return (trunk(X, blind) - expected)[THERE].abs().max().item()


@pytest.mark.parametrize("layout", [Layout(PADDED.position), PADDED], ids=["whole", "padded"])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
def test_outputs_equal_those_of_the_torch_encoder(pre_norm: bool, causal: bool, layout: Layout):
    assert difference(pre_norm, causal, layout) < TOLERANCE


@pytest.mark.parametrize("damage", ["causal mask", "padding mask", "weights"])
@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
def test_the_comparison_notices(pre_norm: bool, damage: str):
    causal = damage != "padding mask"  # behind a causal mask, padding at the end is out of sight anyway
    assert difference(pre_norm, causal, PADDED, damage) > 1000 * TOLERANCE


def test_the_two_norms_are_two_models():
    trunk, encoder = ours(pre_norm=False, causal=False), theirs(pre_norm=True)
    state = {name: value for name, value in translated(encoder).items() if name.startswith("blocks.")}
    trunk.load_state_dict(state)
    assert (trunk(X, Layout(PADDED.position)) - encoder(X)).abs().max() > 1000 * TOLERANCE
