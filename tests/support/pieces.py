"""Pieces of work for pools: functions that another process can import."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from foundation_core.errors import DataError

_LONG_SECONDS = 600.0


def squared(number: int) -> tuple[int, int]:
    """The square, and the process that found it."""
    return number**2, os.getpid()


def refused(name: str) -> None:
    """Nothing: raises."""
    raise DataError(f"found {name}", allowed="allowed", fix="fix")


def failed(number: int) -> None:
    """Nothing: raises what only this process could know."""

    class Local(Exception):
        pass

    raise Local(f"number {number}")


def tied(number: int) -> object:
    """What cannot leave its process."""
    return threading.Lock()


def killed(number: int) -> None:
    """Nothing: its process ends by a signal."""
    os.kill(os.getpid(), number)


def filled(count: int) -> int:
    """Nothing: asks for more bytes than the process may have."""
    resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
    return len(bytearray(count))


@dataclass(frozen=True)
class Noted:
    """A piece of work that leaves a line in a file each time it is begun, and another when it is done.

    Args:
        folder: where the files are, one a piece.
        signals: that end its process, one at each try; then it goes through.
        denials: tries that get no memory.
        waits: until it is told by a file `go` in the folder.
    """

    folder: Path
    number: int
    signals: tuple[int, ...] = ()
    waits: bool = False
    denials: int = 0

    def __str__(self) -> str:
        """Its name."""
        return f"piece {self.number}"

    @property
    def tries(self) -> list[int]:
        """The processes that began it."""
        path = self.folder / f"{self.number}.begun"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    @property
    def ends(self) -> list[int]:
        """The processes that finished it."""
        path = self.folder / f"{self.number}.done"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


def noted(piece: Noted) -> int:
    """The piece's number."""
    before = len(piece.tries)
    with open(piece.folder / f"{piece.number}.begun", "a") as log:
        log.write(f"{os.getpid()}\n")
    if before < len(piece.signals):
        os.kill(os.getpid(), piece.signals[before])
        signal.pause()
    if before < piece.denials:
        raise pa.ArrowMemoryError("malloc failed")
    deadline = time.monotonic() + _LONG_SECONDS
    while piece.waits and not (piece.folder / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with open(piece.folder / f"{piece.number}.done", "a") as log:
        log.write(f"{os.getpid()}\n")
    return piece.number
