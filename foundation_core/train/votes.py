"""What ranks must do alike, they add up first: one small exchange a step, whatever there is to agree on.

    rank 0  {"stop": 0, "max_seconds": 1}  \\
    rank 1  {"stop": 1, "max_seconds": 0}  -- sums --> {"stop": 1, "max_seconds": 1} on every rank

A rank that stopped, saved or did a step again by itself would leave the others in the next exchange of gradients.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from foundation_core.objectives.base import Ranks

MOST_RANKS = 16_384
"""Ranks up to which each may have an entry of its own in the votes: 128 kB, beside the gradients of a model."""


def agree(ranks: Ranks, votes: Mapping[str, float], device: torch.device | None = None) -> dict[str, float]:
    """The sum of each vote over all ranks, the same on every rank; a collective call.

    Args:
        votes: the same names in the same order on every rank. A yes is 1, so that a sum above 0 says that somebody
            wants it, and one of `ranks.world` that all do.
        device: where the ranks exchange tensors. None: the CPU.
    """
    mine = torch.tensor(list(votes.values()), dtype=torch.float64, device=device)
    return dict(zip(votes, ranks.sum_over_ranks(mine).tolist(), strict=True))


def of_each_rank(ranks: Ranks, name: str, value: float) -> dict[str, float]:
    """Votes that tell every rank the figure of each: name/0, name/1, ...; none beyond `MOST_RANKS` ranks."""
    if ranks.world > MOST_RANKS:
        return {}
    return {f"{name}/{rank}": value if rank == ranks.rank else 0.0 for rank in range(ranks.world)}
