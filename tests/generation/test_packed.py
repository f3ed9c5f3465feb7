"""The twin of a model that a CPU writes with.

Measured worst difference of logits of size 15 to 21: 1.05e-5 in float32, none in bfloat16. The tolerances are four
times that, and two roundings of such a number; the damage moves them by 10.
"""

from collections.abc import Callable

import pytest
import torch

from foundation_core.generation import packed as packing
from foundation_core.generation.generate import generate
from foundation_core.generation.packed import packed
from foundation_core.generation.sampling import Sampling
from foundation_core.model.attention import Cache
from foundation_core.model.transformer import Model

Build = Callable[..., Model]
GREEDY = Sampling(temperature=0)
TOKENS = torch.tensor([[5, 7, 8, 9], [30, 2, 30, 11]])
VARIANTS = [
    {},
    {"kv_heads": 1, "qk_norm": True, "feed": "swiglu"},
    {"position": "learned", "norm": "layer", "bias": True, "tie_embeddings": False},
    {"experts": 4},
]
TOLERANCE = {torch.float32: 4.2e-5, torch.bfloat16: 0.25}


@pytest.fixture(params=[True, False], ids=["blocks", "plain"], autouse=True)
def blocks_are_faster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms, whichever is the faster one here."""
    monkeypatch.setattr(packing, "_blocks_are_faster", lambda *case: request.param)


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join(map(str, variant.values())) or "usual")
def model(request: pytest.FixtureRequest, tiny_decoder: Build) -> Model:
    decoder = tiny_decoder(**request.param)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(3.0)
    return decoder.eval()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_twin_says_what_the_model_says_and_the_comparison_notices_a_swapped_weight(
    model: Model, dtype: torch.dtype
):
    model = model.to(dtype)
    with torch.inference_mode():
        expected, found = model(TOKENS), packed(model, rows=2)(TOKENS)
        attention = model.trunk.blocks[1].mix.branch
        attention.out.weight.copy_(attention.query.weight.clone())
        damaged = packed(model, rows=2)(TOKENS)
    assert (found - expected).abs().max() < TOLERANCE[dtype]
    assert (damaged - expected).abs().max() > 4 * TOLERANCE[dtype]


def test_the_twin_leaves_the_model_as_it_was(model: Model):
    before = {name: (id(part), set(vars(part))) for name, part in model.named_modules()}
    with torch.inference_mode():
        packed(model, rows=2)(TOKENS)
    assert {name: (id(part), set(vars(part))) for name, part in model.named_modules()} == before


def test_weights_that_moved_since_the_last_text_are_read_anew(tiny_decoder: Build):
    model, other = tiny_decoder(), tiny_decoder(seed=1)
    first = generate(model, TOKENS.tolist(), 12, GREEDY)
    model.load_state_dict(other.state_dict())
    assert generate(model, TOKENS.tolist(), 12, GREEDY) == generate(other, TOKENS.tolist(), 12, GREEDY) != first


def test_a_store_on_a_cpu_holds_float32_also_of_a_bfloat16_model(tiny_decoder: Build):
    model = tiny_decoder().to(torch.bfloat16).eval()
    cache = Cache(len(model.trunk.blocks), 4)
    with torch.inference_mode():
        logits = model(TOKENS, cache=cache)
    assert logits.dtype == torch.bfloat16
    assert cache.stores[0].held()[0].dtype == torch.float32


def test_a_trial_decides_once_and_leaves_the_random_numbers_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    before, shapes = torch.get_rng_state(), ((64, 32), (32, 64))
    first = packing._blocks_are_faster(torch.float32, 4, shapes, 1)
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(packing, "Joint", None)  # a second trial would need it
    assert packing._blocks_are_faster(torch.float32, 4, shapes, 1) is first
