"""Next token for a mixture of experts: what a router must be told beside the loss, so that it uses all its experts."""

from __future__ import annotations

from torch import Tensor, nn

from foundation_core.model.experts import take_routing
from foundation_core.objectives.base import ALONE, Example, Ranks, Request
from foundation_core.objectives.language import NextToken

_BALANCE, _Z = 0.01, 0.001
"""Weights of the two penalties. Source: Fedus et al. 2022, Switch Transformers, section 2.2; Zoph et al. 2022, ST-MoE,
section 3.1."""


class BalancedNextToken(NextToken):
    """Predict each token from those before it; and let the experts be visited evenly, by routers of small logits.

    How evenly is a property of the whole batch: the visits are counted over all ranks, and the product with the routing
    probabilities is no sum over micro-batches.
    """

    decomposable = False

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
        return labels * (_BALANCE * balance + _Z * z)


def balanced_next_token(request: Request) -> BalancedNextToken:
    """The objective `balanced_next_token`."""
    request.need_tokens()
    return BalancedNextToken()
