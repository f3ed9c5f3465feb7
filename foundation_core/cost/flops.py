"""What a token costs: the count of floating-point operations that utilisation figures are made of."""

from __future__ import annotations

import torch
from torch import nn

from foundation_core.cost.size import Size, training_flops
from foundation_core.model.attention import Attention
from foundation_core.model.block import Block
from foundation_core.model.experts import Experts
from foundation_core.model.families import build
from foundation_core.model.heads import TiedHead
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec

FORMULA = "training FLOPs per token = 6 x (weights that multiply) + 12 x (sum of attention widths) x (context tokens)"
"""In words. A weight costs a product and a sum, forward once and backward twice: 6. Attention's two products cost 4 per
feature and key, the same three times: 12. Every key is counted, also those that a causal mask hides; norms, activations
and looked-up embeddings are not. Source: Chowdhery et al. 2022, PaLM, appendix B."""


def flops_per_token(spec: ModelSpec, shape: SampleShape) -> int:
    """Floating-point operations of training on one token, forward and backward, by `FORMULA`."""
    return training_flops(counted(spec, shape), spec.context_tokens)


def counted(spec: ModelSpec, shape: SampleShape) -> Size:
    """The counts of a model that is built for it, without memory."""
    with torch.device("meta"):
        model = build(spec, shape)
    experts = [part for part in model.modules() if isinstance(part, Experts)]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    routers = {id(part.router) for part in experts}
    inside = (part for block in model.modules() if isinstance(block, Block) for part in block.modules())
    linear = {id(part): part.weight.numel() for part in inside if isinstance(part, nn.Linear)}
    return Size(
        parameters=parameters,
        active=parameters - sum(_idle(part) for part in experts),
        multiplying=sum(part.weight.numel() for part in model.modules() if isinstance(part, (nn.Linear, TiedHead)))
        - sum(part.idle_weights for part in experts),
        attention_width=sum(part.out.in_features for part in model.modules() if isinstance(part, Attention)),
        in_blocks=sum(count for part, count in linear.items() if part not in routers),
    )


def _idle(part: Experts) -> int:
    """Parameters of the experts that a token does not pass."""
    each = sum(parameter.numel() for parameter in part.experts[0].parameters())
    return (len(part.experts) - part.chosen) * each
