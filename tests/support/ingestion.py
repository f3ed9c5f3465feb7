"""Ways to work on an ingestion: in processes, in another order, stopped, killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation_core.files import PARTIAL
from foundation_core.specs import IngestSpec

if TYPE_CHECKING:
    from foundation_core.stages.contract import Pool  # brings torch, which a worker can do without

# Ingests in a child for each given moment, and kills it before that rename.
_KILLED_AT_RENAMES = """
import os, signal, sys
from pathlib import Path
from foundation_core.events import EventLog
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.tracking.base import NullTracker

class Here:
    requested = staticmethod(lambda: False)
    map = staticmethod(lambda function, pieces, workers: map(function, pieces))
    prepare = staticmethod(lambda modules: None)

def dying(call, moments=iter(range(10**6))):
    def count(*arguments):
        if next(moments) == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    return count

spec = IngestSpec.model_validate_json(sys.argv[1])
for point in map(int, sys.argv[3:]):
    child = os.fork()
    if not child:
        os.replace, folder = dying(os.replace), Path(sys.argv[2]) / str(point)
        ingest(spec, {}, Context(folder, NullTracker(), EventLog(folder), Here(), Here(), None))
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""


class ProcessPool:
    """Real processes; results come as they finish."""

    def prepare(self, modules: Sequence[str]) -> None:
        pass

    def map(self, function: Callable[[Any], Any], pieces: Iterable[Any], workers: int) -> Iterator[Any]:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            for done in as_completed([pool.submit(function, piece) for piece in pieces]):
                yield done.result()


class ShuffledPool:
    """This process, in an order of its own."""

    def prepare(self, modules: Sequence[str]) -> None:
        pass

    def map(self, function: Callable[[Any], Any], pieces: Iterable[Any], workers: int) -> Iterator[Any]:
        pieces = list(pieces)
        return map(function, random.Random(0).sample(pieces, len(pieces)))


@dataclass(frozen=True)
class Dying:
    """A function of pieces that notes each piece it begins, and whose process is ended before some units get a name.

    Args:
        notes: a folder with a file for each unit, and a line in it for each try.
        number: of the signal.
        tries: of a victim that end so.
        every: one of so many units is a victim, by its identity.
    """

    function: Callable[[Any], Any] | None
    notes: Path
    number: int = signal.SIGKILL
    tries: int = 1
    every: int = 3

    def __call__(self, piece: Any) -> Any:
        """What the function makes of it, if its process lives so long."""
        note = self.notes / piece.unit.identity
        with open(note, "a") as log:
            log.write(f"{os.getpid()}\n")
        if self.is_victim(piece.unit.identity) and len(note.read_text().split()) <= self.tries:
            os.replace = self._end  # type: ignore[assignment]
        assert self.function is not None
        return self.function(piece)

    def is_victim(self, identity: str) -> bool:
        """Whether the first tries of a unit end its process."""
        return int(identity[:8], 16) % self.every == 0

    def _end(self, source: Any, target: Any) -> None:
        if Path(source).is_dir():  # all files are written, and the folder has not got its name
            os.kill(os.getpid(), self.number)
        os.rename(source, target)

    def begun(self) -> dict[str, int]:
        """How often each unit was begun, by its identity."""
        return {note.name: len(note.read_text().split()) for note in self.notes.iterdir()}


class LossyPool:
    """A pool whose processes die as somebody says."""

    def __init__(self, pool: Pool, dying: Dying) -> None:
        self.pool, self.dying = pool, dying

    def prepare(self, modules: Sequence[str]) -> None:
        self.pool.prepare(modules)

    def map(self, function: Any, pieces: Iterable[Any], workers: int | None = None) -> Iterator[Any]:
        return self.pool.map(replace(self.dying, function=function), pieces, workers)


def finished_units(folder: Path, phase: str = "*") -> dict[Path, int]:
    """When the units of a phase were made, in nanoseconds, by the paths of their `unit.json`."""
    found = folder.glob(f"units/{phase}/*/*/unit.json")
    return {path: path.stat().st_mtime_ns for path in found if not path.parent.name.endswith(PARTIAL)}


def killed_at_renames(spec: IngestSpec, folder: Path, points: Sequence[int]) -> None:
    """Ingest once for each point into a folder of its name, and kill it before that rename, counted from 0."""
    command = [sys.executable, "-c", _KILLED_AT_RENAMES, spec.model_dump_json(), str(folder), *map(str, points)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["9"] * len(points)
