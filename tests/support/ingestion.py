"""Ways to work on an ingestion: in processes, in another order, stopped, killed."""

from __future__ import annotations

import multiprocessing
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from foundation_core.files import PARTIAL
from foundation_core.specs import IngestSpec

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


class StopAfter:
    """A stop signal that comes at the n-th question."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def finished_units(folder: Path, phase: str = "*") -> dict[Path, int]:
    """When the units of a phase were made, in nanoseconds, by the paths of their `unit.json`."""
    found = folder.glob(f"units/{phase}/*/*/unit.json")
    return {path: path.stat().st_mtime_ns for path in found if not path.parent.name.endswith(PARTIAL)}


def killed_at_renames(spec: IngestSpec, folder: Path, points: Sequence[int]) -> None:
    """Ingest once for each point into a folder of its name, and kill it before that rename, counted from 0."""
    command = [sys.executable, "-c", _KILLED_AT_RENAMES, spec.model_dump_json(), str(folder), *map(str, points)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["9"] * len(points)
