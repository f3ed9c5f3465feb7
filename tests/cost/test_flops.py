from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from foundation_core.cost.flops import flops_per_token
from foundation_core.model.families import build
from foundation_core.objectives.language import NextToken
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

VOCABULARY, ROWS, CONTEXT = 200, 2, 64
SHAPE = SampleShape(vocabulary=VOCABULARY)


def counted(spec: ModelSpec) -> float:
    """FLOPs per token that torch counts in one forward and backward; plain products, for it counts no CPU kernel."""
    tokens = torch.randint(0, VOCABULARY, (ROWS, CONTEXT + 1))
    batch = {"tokens": tokens, "segment": torch.zeros_like(tokens), "position": torch.arange(CONTEXT + 1).expand(2, -1)}
    objective, model = NextToken(), build(spec, SHAPE)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        objective.loss(model, objective.prepare(batch, seed=0)).backward()
    return counter.get_total_flops() / (ROWS * CONTEXT)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("trunk", [{}, {"kv_heads": 1, "feed": "swiglu"}, {"position": "learned", "bias": True}])
def test_the_formula_gives_what_torch_counts(trunk: dict[str, Any], tied: bool):
    trunk_spec = TrunkSpec(**{"width": 48, "depth": 2, "heads": 4, **trunk})
    spec = ModelSpec(trunk=trunk_spec, context_tokens=CONTEXT, tie_embeddings=tied)
    assert flops_per_token(spec, SHAPE) == pytest.approx(counted(spec), rel=0.01)
