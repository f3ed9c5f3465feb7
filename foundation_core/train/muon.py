"""Muon: a matrix moves by the same amount in each of its directions; what is no matrix of a block moves by AdamW.

    gradient -> momentum -> orthogonalised -> scaled -> matrix        q, k, v, out, up, gate of every block
    gradient -> AdamW                                                 embeddings, heads, norms, biases, routers

Sources: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (the method, the iteration and
its coefficients); Liu et al. 2025, "Muon is Scalable for LLM Training", section 2.2 (the scale, the weight decay).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import ceil, sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foundation_core.train.ranks import GroupOfRanks

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic a s + b s^3 + c s^5, chosen for a steep rise at 0: after five of them singular values lie around 1,
between 0.7 and 1.2, and do not converge further."""
_LEAST_NORM = 1e-7
_ADAMW_RMS = 0.2
"""How far AdamW moves an entry in a step of learning rate 1, as a root mean square; measured by Liu et al."""
_BATCH_VALUES = 2**25
"""Of the matrices that are orthogonalised in one product: larger ones gain nothing from company."""


class Muon(torch.optim.Optimizer):
    """One optimizer with groups of both kinds; its state is `momentum_buffer` of a matrix, and AdamW's of the rest.

    Against `torch.optim.Muon` it orthogonalises all matrices of one shape in one product, in the number format of the
    training in place of always bf16, and moves what is no matrix too, so that an engine has one optimizer to step.

    Args:
        matrices: a group: params, lr, weight_decay, momentum, iterations.
        others: what moves the rest. None: there is no rest.
        dtype: of the products that orthogonalise.
        ranks: among which the work of orthogonalising is shared out; all of them hold the same. None: there is one.
    """

    def __init__(
        self,
        matrices: dict[str, Any],
        others: torch.optim.AdamW | None,
        dtype: torch.dtype,
        ranks: GroupOfRanks | None = None,
    ) -> None:
        self._others, self._dtype, self._ranks = others, dtype, ranks
        super().__init__([matrices, *(others.param_groups if others else [])], {})
        if others is not None:
            others.state = self.state  # the groups are the same objects already: who changes one changes both

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None, "the loss is not computed again"
        self._move_matrices(self.param_groups[0])
        if self._others is not None:
            self._others.step()

    def _move_matrices(self, group: dict[str, Any]) -> None:
        matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
        keep = 1 - group["lr"] * group["weight_decay"]
        for alike in _alike(matrices):
            updates = torch.stack([_wide(self._nesterov(matrix, group["momentum"])) for matrix in alike])
            updates = self._orthogonalized(updates.to(self._dtype), group["iterations"])
            scale = _ADAMW_RMS * sqrt(max(alike[0].shape))
            for matrix, update in zip(alike, updates, strict=True):
                matrix.mul_(keep).add_(update.mT if _is_tall(matrix) else update, alpha=-group["lr"] * scale)

    def _orthogonalized(self, updates_KMN: Tensor, iterations: int) -> Tensor:
        """(K, M, N): each rank works on its share of the matrices, if there is one for each."""
        ranks, count = self._ranks, len(updates_KMN)
        if ranks is None or count < ranks.world:
            return orthogonalized(updates_KMN, iterations)
        share = ceil(count / ranks.world)
        filled = F.pad(updates_KMN, (0, 0, 0, 0, 0, share * ranks.world - count))
        mine = orthogonalized(filled[ranks.rank * share :][:share], iterations)
        return ranks.gather_over_ranks(mine).flatten(0, 1)[:count]

    def _nesterov(self, matrix: Tensor, momentum: float) -> Tensor:
        """The gradient, moved towards the mean of the gradients that now includes it."""
        gradient, state = matrix.grad, self.state[matrix]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        mean: Tensor = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(mean, momentum)


def orthogonalized(updates_KMN: Tensor, iterations: int) -> Tensor:
    """(K, M, N): matrices with the same singular vectors, whose singular values are brought close to 1.

    The Newton-Schulz iteration takes products alone, and no decomposition. A matrix of zeros stays zero.

    Args:
        updates_KMN: M <= N.
    """
    a, b, c = COEFFICIENTS
    x_KMN: Tensor = updates_KMN / updates_KMN.norm(dim=(-2, -1), keepdim=True).clamp(min=_LEAST_NORM)
    for _ in range(iterations):
        gram_KMM = x_KMN @ x_KMN.mT
        factor_KMM = torch.baddbmm(gram_KMM, gram_KMM, gram_KMM, beta=b, alpha=c)
        x_KMN = torch.baddbmm(x_KMN, factor_KMM, x_KMN, beta=a)
    return x_KMN


def _alike(matrices: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Matrices of one shape, whichever way round, as many as make one product."""
    by_shape: dict[tuple[int, ...], list[Tensor]] = {}
    for matrix in matrices:
        by_shape.setdefault(tuple(sorted(matrix.shape)), []).append(matrix)
    for (rows, columns), alike in by_shape.items():
        at_once = max(1, _BATCH_VALUES // (rows * columns))
        for start in range(0, len(alike), at_once):
            yield alike[start : start + at_once]


def _is_tall(matrix: Tensor) -> bool:
    return matrix.shape[0] > matrix.shape[1]


def _wide(matrix: Tensor) -> Tensor:
    return matrix.mT if _is_tall(matrix) else matrix
