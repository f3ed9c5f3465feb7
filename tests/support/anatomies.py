"""Small models of every family that predicts tokens, for the page on which people see them read."""

from __future__ import annotations

from typing import Any

import torch

from foundation_core.fitting import FAMILIES
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.transformer import Reader
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

VOCABULARY = 400
GRID = SampleShape(vocabulary=VOCABULARY, channels=2, height=8, width=12)
"""Of values that a captioner reads: 2 x 6 patches."""

TRUNKS: dict[str, dict[str, Any]] = {
    "the quickstart's": {"norm": "layer", "feed": "relu2"},
    "of GPT-2's parts": {"position": "learned", "norm": "layer", "bias": True},
    "of Llama's parts": {"position": "rotary", "feed": "swiglu", "kv_heads": 2},
    "of the first transformer's parts": {
        "position": "sinusoidal", "residual": "post", "norm": "layer", "feed": "relu", "bias": True,
    },
    "with ALiBi": {"position": "alibi", "residual": "branch"},
    "with relative positions": {"position": "relative", "qk_norm": True},
    "without positions": {"position": "none", "kv_heads": 1},
}  # fmt: skip


def a_model(
    family: str,
    *,
    tie_embeddings: bool = True,
    runs: dict[str, Any] | None = None,
    second: dict[str, Any] | None = None,
    **trunk: Any,
) -> Reader:
    """A model of width 32, 2 blocks, 4 heads, with random weights everywhere; keywords change its trunk.

    Args:
        second: of its second trunk. None: like the first.
    """
    spec = ModelSpec(
        family=family,
        trunk=TrunkSpec(width=32, depth=2, heads=4, **trunk),
        second_trunk=None if second is None else TrunkSpec(**second),
        context_tokens=64,
        patch=(4, 2),
        runs=runs or {},  # type: ignore[arg-type]
        tie_embeddings=tie_embeddings,
    )
    shape = GRID if FAMILIES[family].reads == "values" else SampleShape(vocabulary=VOCABULARY)
    model = initialize(build(spec, shape), seed=1)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():  # a fresh norm or bias does nothing, and would not be missed
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    return model.eval()
