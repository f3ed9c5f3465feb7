"""What every stage receives and returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from foundation_core.events import EventLog
from foundation_core.store import UNITS_FOLDER, Result, StageResult
from foundation_core.tracking.base import Tracker
from foundation_core.train.engine import EngineFactory
from foundation_core.train.precision import CPU, Precision, choose_precision

Inputs = Mapping[str, Result]
"""Committed results of earlier stages, by role: corpus, trunk, task, scores."""

Piece = TypeVar("Piece")
Done = TypeVar("Done")


class StopSignal(Protocol):
    """Says whether somebody asked the stage to stop."""

    def requested(self) -> bool:
        """True once a stop was asked for; the stage then saves its work and raises `Stopped`."""


class Pool(Protocol):
    """Runs independent pieces of work side by side: local processes, or a Ray cluster.

    A process that dies costs what it has in hand, which another one does again.
    """

    def prepare(self, modules: Sequence[str]) -> None:
        """Get ready for functions that need these modules, while this process goes on with something else."""

    def map(
        self, function: Callable[[Piece], Done], pieces: Iterable[Piece], workers: int | None = None
    ) -> Iterator[Done]:
        """The result of each piece, in the order in which they finish; few pieces are taken ahead.

        Args:
            function: that another process can import; it may run twice for a piece, the second time after the first
                was ended.
            pieces: whose `str` is what people call them.
            workers: at most so many side by side. None: as many as the pool has room for.
        """


@dataclass(frozen=True)
class Context:
    """What surrounds a stage; in a data-parallel stage, one rank's view of it.

    Args:
        folder: where the stage writes; it alone writes there.
        shared: folder of what several stages of a data folder may find again. None: the stage's own folder.
        engine: builds the training engine around a model.
        local_rank, local_world: which rank of this machine this is, and how many are on it.
        device: that the model is trained on.
        choose_precision: decides a number format for it; the same one on every rank.
    """

    folder: Path
    tracker: Tracker
    events: EventLog
    stop: StopSignal
    pool: Pool
    engine: EngineFactory
    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    device: torch.device = CPU
    choose_precision: Callable[[str], Precision] = choose_precision
    shared: Path | None = None

    @property
    def units(self) -> Path:
        """Folder of units of work."""
        return (self.shared or self.folder) / UNITS_FOLDER


Stage = Callable[[Any, Inputs, Context], StageResult]
"""A stage: (spec, inputs, context) -> StageResult."""
