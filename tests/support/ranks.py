"""Several ranks in one process: threads that meet where real ranks exchange tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from foundation_core.specs import OptimizerSpec
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.fragments import Fragment

Answer = TypeVar("Answer")


class Meeting:
    """Where the threads of all ranks exchange tensors."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._barrier = threading.Barrier(world, timeout=30)
        self._brought: dict[int, Tensor] = {}

    def gather(self, rank: int, value: Tensor) -> Tensor:
        """(world, ...) what every rank brought."""
        self._brought[rank] = value
        self._barrier.wait()
        found = torch.stack([self._brought[number] for number in range(self.world)])
        self._barrier.wait()
        return found


class ThreadedEngine(TorchEngine):
    """The torch engine as one of several ranks, each of which saves its share of every tensor."""

    def __init__(self, module: nn.Module, meeting: Meeting, rank: int) -> None:
        super().__init__(module, EngineRequest(OptimizerSpec()))
        self.meeting, self.rank, self.world = meeting, rank, meeting.world

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """The sum."""
        return self.meeting.gather(self.rank, value).sum(0)

    def gather_over_ranks(self, value: Tensor) -> Tensor:
        """What every rank brought."""
        return self.meeting.gather(self.rank, value)

    def barrier(self) -> None:
        """Wait for all."""
        self.meeting.gather(self.rank, torch.zeros(1))

    def fragments(self) -> Iterator[Fragment]:
        """This rank's share."""
        for fragment in super().fragments():
            size = fragment.values.numel()
            first, end = self.rank * size // self.world, (self.rank + 1) * size // self.world
            if first < end:
                yield replace(fragment, start=first, values=fragment.values[first:end])


def of_each_rank(world: int, work: Callable[[ThreadedEngine], Answer], module: Callable[[], nn.Module]) -> list[Answer]:
    """What each rank's work gives, or the error that it raises, in the order of the ranks."""
    meeting = Meeting(world)

    def outcome(rank: int) -> Answer:
        return work(ThreadedEngine(module(), meeting, rank))

    with ThreadPoolExecutor(world) as threads:
        started = [threads.submit(outcome, rank) for rank in range(world)]
    return [future.exception() or future.result() for future in started]  # type: ignore[misc]
