"""What ranks say to each other: sums, gathers and barriers of torch's default process group."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from foundation_core.errors import LostConnectionError

_GLOO = "gloo/transport/"
"""The folder of gloo's sources that stands in the words of a broken or silent connection: a plain RuntimeError."""


class GroupOfRanks:
    """The part of an engine of several ranks that has nothing to do with learning; the process group exists already."""

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """The sum over all ranks."""
        total = value.clone()
        dist.all_reduce(total)
        return total

    def gather_over_ranks(self, value: Tensor) -> Tensor:
        """(world, ...) the tensor of every rank."""
        parts = [torch.empty_like(value) for _ in range(self.world)]
        dist.all_gather(parts, value.contiguous())
        return torch.stack(parts)

    def barrier(self) -> None:
        """Wait for every rank."""
        dist.barrier()


def lost_connection(error: Exception) -> LostConnectionError | None:
    """The error of a rank whose exchange with the others broke off or timed out; None if it says something else."""
    if isinstance(error, dist.DistError) or (type(error) is RuntimeError and _GLOO in str(error)):
        return LostConnectionError(f"an exchange with the other ranks broke off: {str(error).splitlines()[0]}")
    return None
