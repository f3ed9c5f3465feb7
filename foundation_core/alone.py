"""The surroundings of a stage in one plain process: no Ray, no DeepSpeed, no Prefect, no MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from foundation_core.events import EventLog
from foundation_core.stages.contract import Context
from foundation_core.tracking.base import EventTracker
from foundation_core.train.engine import TorchEngine
from foundation_core.train.precision import keep_precision

Piece = TypeVar("Piece")
Done = TypeVar("Done")


class SerialPool:
    """A pool of this process alone."""

    def prepare(self, modules: Sequence[str]) -> None:
        """Nothing: what is needed is imported when it is."""

    def map(
        self, function: Callable[[Piece], Done], pieces: Iterable[Piece], workers: int | None = None
    ) -> Iterator[Done]:
        """The result of each piece, in their own order."""
        return map(function, pieces)


class NeverStop:
    """A stop signal that nobody gives."""

    def requested(self) -> bool:
        """False."""
        return False


def alone(folder: Path) -> Context:
    """The context of a stage that writes to a folder and runs in this process alone."""
    events = EventLog(folder)
    return Context(
        folder, EventTracker(events), events, stop=NeverStop(), pool=SerialPool(), engine=TorchEngine,
        choose_precision=partial(keep_precision, folder),
    )  # fmt: skip
