"""Our decoder against transformers' GPT-2 with the same tiny random weights, float32.

Measured worst difference of the logits, which are of size 6: 3.6e-6 with AVX2, 5.4e-6 without. The tolerance is four
times that; another form of the same activation moves them by 4.6e-3.
"""

import pytest
import torch
from torch import Tensor, nn

from foundation_core.interop.language import GPT2
from foundation_core.interop.mapping import to_ours, to_theirs
from foundation_core.model.families import build
from foundation_core.model.transformer import Model
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

transformers = pytest.importorskip("transformers")

VOCABULARY, WIDTH, DEPTH, HEADS, CONTEXT = 97, 32, 3, 4, 24
SHAPE = SampleShape(vocabulary=VOCABULARY)
TOLERANCE = 2e-5
TOKENS = torch.randint(0, VOCABULARY, (2, CONTEXT), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=DEPTH, n_head=HEADS, bos_token_id=0,
        eos_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()
    for name, parameter in model.named_parameters():  # biases and gains that matter, and layers that differ
        nn.init.normal_(parameter, mean=1.0 if ".ln_" in name and name.endswith("weight") else 0.0, std=0.3)
    return model


def ours(activation: nn.Module) -> Model:
    trunk = TrunkSpec(width=WIDTH, depth=DEPTH, heads=HEADS, position="learned", norm="layer", bias=True)
    model = build(ModelSpec(trunk=trunk, context_tokens=CONTEXT, tie_embeddings=True), SHAPE)
    for block in model.trunk.blocks:
        block.feed.branch.activation = activation
    return model.eval()


def translated(gpt2: nn.Module) -> dict[str, Tensor]:
    return to_ours(gpt2.state_dict(), GPT2)


def difference(model: Model, gpt2: nn.Module, state: dict[str, Tensor]) -> float:
    model.load_state_dict(state)
    with torch.no_grad():
        return (model(TOKENS) - gpt2(TOKENS).logits).abs().max().item()


def test_logits_equal_those_of_gpt2(theirs: nn.Module):
    assert difference(ours(nn.GELU(approximate="tanh")), theirs, translated(theirs)) < TOLERANCE


def test_the_comparison_notices_another_activation(theirs: nn.Module):
    assert difference(ours(nn.GELU()), theirs, translated(theirs)) > 100 * TOLERANCE


def test_the_comparison_notices_a_removed_mask(theirs: nn.Module):
    model = ours(nn.GELU(approximate="tanh"))
    model.trunk.causal = False
    assert difference(model, theirs, translated(theirs)) > 1000 * TOLERANCE


@pytest.mark.parametrize("name", ["mix.branch.query.weight", "mix.branch.out.bias", "feed.norm.weight"])
def test_the_comparison_notices_a_swapped_weight(theirs: nn.Module, name: str):
    state = translated(theirs)
    first, last = f"trunk.blocks.0.{name}", f"trunk.blocks.2.{name}"
    state[first], state[last] = state[last], state[first]
    assert difference(ours(nn.GELU(approximate="tanh")), theirs, state) > 1000 * TOLERANCE


def test_weights_come_back_to_the_bit_under_their_names(theirs: nn.Module):
    state = theirs.state_dict()
    back = to_theirs(translated(theirs), GPT2)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
