"""Our decoder against transformers' Llama with the same tiny random weights, float32: rotary positions, grouped heads,
SwiGLU, RMS norms.

Measured worst difference of the logits, which are of size 7: 5.5e-6 with AVX2, 6.6e-6 without. The tolerance is three
times that; the damages below move them by more than a thousand times as much.
"""

import pytest
import torch
from torch import Tensor, nn

from foundation_core.interop.language import LLAMA
from foundation_core.interop.mapping import to_ours, to_theirs
from foundation_core.model.families import build
from foundation_core.model.layout import Layout
from foundation_core.model.transformer import Model
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

transformers = pytest.importorskip("transformers")

VOCABULARY, WIDTH, DEPTH, HEADS, KV_HEADS, HIDDEN, CONTEXT = 97, 32, 3, 4, 2, 88, 24
SHAPE = SampleShape(vocabulary=VOCABULARY)
TOLERANCE = 2e-5
TOKENS = torch.randint(0, VOCABULARY, (2, CONTEXT), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=DEPTH,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=CONTEXT, rms_norm_eps=1e-6,
        tie_word_embeddings=False, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():  # gains that matter, and layers that differ
        nn.init.normal_(parameter, mean=1.0 if name.endswith("norm.weight") else 0.0, std=0.3)
    return model


@pytest.fixture
def ours() -> Model:
    trunk = TrunkSpec(width=WIDTH, depth=DEPTH, heads=HEADS, kv_heads=KV_HEADS, hidden=HIDDEN, feed="swiglu")
    return build(ModelSpec(trunk=trunk, context_tokens=CONTEXT, tie_embeddings=False), SHAPE).eval()


def translated(llama: nn.Module) -> dict[str, Tensor]:
    return to_ours(llama.state_dict(), LLAMA)


def difference(model: Model, llama: nn.Module, layout: Layout | None = None) -> float:
    with torch.no_grad():
        return (model(TOKENS, layout) - llama(TOKENS).logits).abs().max().item()


def test_logits_equal_those_of_llama(ours: Model, theirs: nn.Module):
    ours.load_state_dict(translated(theirs))
    assert difference(ours, theirs) < TOLERANCE


def test_the_comparison_notices_wrong_positions(ours: Model, theirs: nn.Module):
    ours.load_state_dict(translated(theirs))
    assert difference(ours, theirs, Layout(torch.zeros_like(TOKENS))) > 1000 * TOLERANCE


@pytest.mark.parametrize("pair", [("gate", "up"), ("key", "value")])
def test_the_comparison_notices_a_swapped_weight(ours: Model, theirs: nn.Module, pair: tuple[str, str]):
    state = translated(theirs)
    first, second = ([name for name in state if f".{part}.weight" in name] for part in pair)
    swapped = {a: state[b] for a, b in zip(first + second, second + first, strict=True)}
    ours.load_state_dict({**state, **swapped})
    assert difference(ours, theirs) > 1000 * TOLERANCE


def test_weights_come_back_to_the_bit_under_their_names(theirs: nn.Module):
    state = theirs.state_dict()
    back = to_theirs(translated(theirs), LLAMA)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
