"""Next token for a mixture of experts: what a router must be told beside the loss, so that it uses all its experts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foundation_core.model.experts import Experts
from foundation_core.model.layout import PADDING, Layout
from foundation_core.objectives.base import ALONE, Example, Ranks, Request
from foundation_core.objectives.language import NextToken

BALANCE, Z = 0.01, 0.001
"""Weights of the two penalties. Source: Fedus et al. 2022, Switch Transformers, section 2.2; Zoph et al. 2022, ST-MoE,
section 3.1."""


class BalancedNextToken(NextToken):
    """Predict each token from those before it; and let the experts be visited evenly, by routers of small logits.

    How evenly is a property of the whole batch: the visits are counted over all ranks, and the product with the routing
    probabilities is no sum over micro-batches.
    """

    decomposable = False

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """float32 scalar: the sum of -log p(label), in nats. In training the routers are heard for the penalty."""
        if torch.is_grad_enabled():
            ask_routing(model)
        return super().loss(model, example, ranks)

    def penalty(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor | float:
        """This rank's part of the load-balance loss and the z-loss, both means over the layers, times the labels.

        Balance is N x sum over the experts of (share of the visits x mean routing probability): 1 where all are even.
        """
        routing = take_routing(model, example.inputs["layout"])
        if routing is None:
            return 0.0
        layers, experts = routing.probability.shape
        tokens, visits_LN = ranks.sum_over_ranks(routing.tokens), ranks.sum_over_ranks(routing.visits)
        share_LN = visits_LN / visits_LN.sum(dim=1, keepdim=True).clamp(min=1)
        tokens = tokens.clamp(min=1)
        balance = experts * (share_LN * routing.probability / tokens).sum() / layers
        z = (routing.squared_logsumexp / tokens).sum() / layers
        labels = ranks.sum_over_ranks(example.count)
        return labels * (BALANCE * balance + Z * z)


@dataclass(frozen=True)
class Routing:
    """What the routers did with the tokens that are there, as sums over them, one row per layer.

    Args:
        probability: (layers, N) sum of the routing probabilities, with gradient.
        visits: (layers, N) tokens sent to each expert.
        squared_logsumexp: (layers,) sum of the squared log-sum-exp of the router's logits, with gradient: Zoph et al.
            2022, ST-MoE, equation 5.
        tokens: int64 scalar, how many tokens there are.
    """

    probability: Tensor
    visits: Tensor
    squared_logsumexp: Tensor
    tokens: Tensor


def ask_routing(model: nn.Module) -> None:
    """Have all routers keep what they say, until it is taken."""
    for part in model.modules():
        if isinstance(part, Experts):
            part.asked = True


def take_routing(model: nn.Module, layout: Layout) -> Routing | None:
    """What all routers did in the last forward since they were asked, first layer first; padding is not counted.

    None: there are no experts, or nobody asked. It is taken, not read: a graph that stays with a model is not freed.

    Args:
        layout: of the tokens of that forward.
    """
    layers = [part for part in model.modules() if isinstance(part, Experts)]
    there_BT = torch.ones_like(layout.position) if layout.segment is None else layout.segment != PADDING
    there_M1 = there_BT.flatten().float()[:, None]
    probability, visits, squared = [], [], []
    for layer in layers:
        if layer.said is None:
            return None
        (logits_BTN, expert_BTC), layer.asked, layer.said = layer.said, False, None
        logits_MN = logits_BTN.flatten(0, 1)
        sent_MN = torch.zeros_like(logits_MN).scatter(1, expert_BTC.flatten(0, 1), 1.0)
        probability.append((logits_MN.softmax(dim=-1) * there_M1).sum(dim=0))
        visits.append((sent_MN * there_M1).sum(dim=0))
        squared.append((logits_MN.logsumexp(dim=-1, keepdim=True).square() * there_M1).sum())
    if not layers:
        return None
    return Routing(torch.stack(probability), torch.stack(visits), torch.stack(squared), there_BT.sum())


def balanced_next_token(request: Request) -> BalancedNextToken:
    """The objective `balanced_next_token`."""
    request.need_tokens()
    return BalancedNextToken()
