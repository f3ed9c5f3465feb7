"""What looks at a training from beside: the watchdog, the comparison of ranks and the energy meters, for one rank."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, Self

import torch

from foundation_core.events import EventLog, read_events
from foundation_core.specs.watch import WatchSpec
from foundation_core.train.energy import EnergyLog, meters
from foundation_core.train.engine import Engine
from foundation_core.train.stragglers import OwnWork, Stragglers
from foundation_core.train.votes import MOST_RANKS, agree, of_each_rank
from foundation_core.train.watchdog import Watchdog

OWN_SECONDS = "own_seconds"


class Watch(Protocol):
    """Whom the loop tells what it does."""

    own: OwnWork
    """Counts what this rank does alone."""

    def begins(self, what: str, step: int) -> None:
        """Something begins: a step, a validation, a save, the end."""

    def votes(self) -> dict[str, float]:
        """What the ranks exchange with their other votes after a step."""

    def agreed(self, sums: Mapping[str, float], step: int) -> None:
        """What all ranks' votes came to."""


class Unwatched:
    """Nobody watches: a training of one rank in a test, or by hand."""

    def __init__(self) -> None:
        self.own = OwnWork(torch.device("cpu"))

    def begins(self, what: str, step: int) -> None:
        """Nobody listens."""

    def votes(self) -> dict[str, float]:
        """None."""
        return {}

    def agreed(self, sums: Mapping[str, float], step: int) -> None:
        """Nobody judges."""


class Watched:
    """One rank's watch while the block runs; making it is a collective call.

    Args:
        events: rank 0 names stragglers there; the others' are silent.
    """

    def __init__(self, folder: Path, spec: WatchSpec, engine: Engine, events: EventLog) -> None:
        began = agree(engine, {"began": time.time() if engine.rank == 0 else 0.0}, engine.device)["began"]
        attempt = datetime.fromtimestamp(began, UTC).strftime("%Y%m%dT%H%M%S.%f")
        first = int(os.environ.get("LOCAL_RANK", "0")) == 0
        mine = meters(spec, engine.device, first_of_machine=first)
        self._folder, self._engine, self._events = folder, engine, events
        self._watchdog = Watchdog(folder, spec, engine.rank, engine.world, attempt)
        self._energy = EnergyLog(folder, engine.rank, engine.world, mine)
        self.own = OwnWork(engine.device)
        factor = spec.straggler_factor if engine.world > 1 else None
        if factor is not None and engine.world > MOST_RANKS:
            events.say(f"no straggler is named: of {engine.world} workers, at most {MOST_RANKS} are compared")
            factor = None
        self._stragglers = None if factor is None else Stragglers(factor, spec.straggler_steps, spec.straggler_seconds)
        self._slow_since: dict[int, float] = {}

    def __enter__(self) -> Self:
        """Begin."""
        self._watchdog.__enter__()
        self._energy.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """End, and say what energy was taken."""
        self._energy.__exit__()
        self._watchdog.__exit__()

    def begins(self, what: str, step: int) -> None:
        """Tell the watchdog."""
        self._watchdog.begins(what, step)

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """A block after which, however it ends, what was begun is closed: that may take longer than a step."""
        try:
            yield
        finally:
            self._watchdog.begins("leave", 0)

    def votes(self) -> dict[str, float]:
        """This rank's own seconds of the step, among those of all."""
        seconds = self.own.taken_seconds()
        return of_each_rank(self._engine, OWN_SECONDS, seconds) if self._stragglers else {}

    def agreed(self, sums: Mapping[str, float], step: int) -> None:
        """Rank 0 says who became slow, and who is well again."""
        if self._stragglers is None or self._engine.rank != 0:
            return
        seconds = {int(name.partition("/")[2]): took for name, took in sums.items() if name.startswith(OWN_SECONDS)}
        for rank, factor, slow in self._stragglers.saw(seconds, time.monotonic()):
            facts = {"rank": rank, "host": _hosts(self._folder).get(rank, ""), "factor": round(factor, 2)}
            if slow:
                self._slow_since[rank] = time.monotonic()
                what = f"rank {rank} on {facts['host']} takes {factor:.1f} times the others' median for its own work"
                self._events.write(
                    "failure", failure="straggler", step=step, attempt=None, budget_left=None, what=what, **facts
                )
            else:
                taken = round(time.monotonic() - self._slow_since.pop(rank), 3)
                self._events.write("recovered", failure="straggler", step=step, seconds=taken, **facts)


def _hosts(folder: Path) -> dict[int, str]:
    """The host of each rank, by its own latest word."""
    return {event["rank"]: event["host"] for _, event in read_events(folder) if event["kind"] == "rank"}
