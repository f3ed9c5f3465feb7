"""What ranks say to each other: sums, gathers and barriers of torch's default process group."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


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
