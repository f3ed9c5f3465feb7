"""A mixture of experts: many feed-forward layers, of which each token passes only a few."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Experts(nn.Module):
    """Each token through the experts that its router finds most probable, weighted by how probable they are.

    No token is dropped. While `asked`, it keeps what its router says, with its graph, for those who balance it.

    Args:
        experts: feed-forward layers, N of them.
        chosen: experts that a token passes.

    Source: Shazeer et al. 2017; Jiang et al. 2024, Mixtral of Experts, section 2.1.
    """

    def __init__(self, width: int, experts: Iterable[nn.Module], chosen: int) -> None:
        super().__init__()
        self.experts, self.chosen = nn.ModuleList(experts), chosen
        self.router = nn.Linear(width, len(self.experts), bias=False)
        self.asked = False
        self.said: tuple[Tensor, Tensor] | None = None

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D): what the chosen experts made of each token."""
        x_MD = x_BTD.flatten(0, -2)
        logits_MN: Tensor = self.router(x_MD).float()
        probability_MC, expert_MC = logits_MN.softmax(dim=-1).topk(self.chosen, dim=-1)
        if self.asked:
            self.said = logits_MN.view(*x_BTD.shape[:-1], -1), expert_MC.view(*x_BTD.shape[:-1], -1)
        weight_MC = probability_MC
        if self.chosen > 1:  # of a single one the share would be 1 always, and the router would learn nothing
            weight_MC = probability_MC / probability_MC.sum(dim=-1, keepdim=True)
        y_MCD = self._through(x_MD, expert_MC)
        y_MD: Tensor = (y_MCD * weight_MC[..., None].to(y_MCD.dtype)).sum(dim=1)
        return y_MD.view_as(x_BTD)

    def _through(self, x_MD: Tensor, expert_MC: Tensor) -> Tensor:
        """(M, C, D): tokens sorted by expert, each expert's in one product, and put back in their places."""
        expert_of_visit = expert_MC.flatten()
        visit_by_expert = expert_of_visit.argsort(stable=True)
        tokens_of_expert = expert_of_visit.bincount(minlength=len(self.experts)).tolist()
        parts = torch.split(x_MD.index_select(0, visit_by_expert // self.chosen), tokens_of_expert)
        # An expert without a token computes too: its gradient is then 0, where none at all would differ between ranks.
        y_VD = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
        return y_VD.index_select(0, visit_by_expert.argsort()).view(*expert_MC.shape, -1)

    @property
    def idle_weights(self) -> int:
        """Weights of the products that a token does not pass."""
        weights = sum(part.weight.numel() for part in self.experts.modules() if isinstance(part, nn.Linear))
        return weights - weights * self.chosen // len(self.experts)
