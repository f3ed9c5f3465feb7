"""What becomes of a piece of work whose process is gone: it is done again by another, and so many times only."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from foundation_core.errors import DataError, FoundationError, SetupError, TransientError

Piece = TypeVar("Piece")

MOST_TRIES = 4
"""How often a piece is begun whose process does not live to its end."""
MOST_NODES = 10
"""How often, where it was the node that went: that is hardly the piece's doing."""
_NAME_CHARACTERS = 300
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS)
"""What a process gets for what it does itself; the others come from outside."""
_NAMED = frozenset(signal.Signals)


class Cause(Enum):
    """Why a process is gone, as far as it decides what can help."""

    MEMORY = "memory"
    CRASH = "crash"
    NODE = "node"
    KILLED = "killed"


@dataclass(frozen=True)
class Loss:
    """The end of a process that had a piece in hand.

    Args:
        words: how it went: `was ended by SIGKILL`.
    """

    cause: Cause
    words: str

    @staticmethod
    def of_status(status: int | None, *, for_memory: bool) -> Loss:
        """What the exit status of a local process says.

        Args:
            status: negative: the signal that ended it. None: nobody knows.
            for_memory: the kernel ended processes of this machine for want of memory meanwhile.
        """
        if status is None or status >= 0:
            return Loss(Cause.KILLED, "is gone" if status is None else f"ended with status {status}")
        number = -status
        if number == signal.SIGKILL and for_memory:
            return Loss(Cause.MEMORY, "was ended by the kernel for want of memory")
        name = signal.Signals(number).name if number in _NAMED else f"signal {number}"  # real-time ones have no name
        return Loss(Cause.CRASH if number in _CRASHES else Cause.KILLED, f"was ended by {name}")


NO_MEMORY: Final = Loss(Cause.MEMORY, "had no memory")
"""Of a process that asked for memory and got none; it may live on."""


@dataclass
class Task(Generic[Piece]):
    """A piece, and the processes that it has lost."""

    piece: Piece
    losses: list[Loss] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the piece is called in front of people."""
        return named(self.piece)

    def lost(self, loss: Loss) -> None:
        """Note that its process is gone.

        Raises:
            FoundationError: that was the last try.
        """
        self.losses.append(loss)
        nodes = sum(each.cause is Cause.NODE for each in self.losses)
        if len(self.losses) - nodes >= MOST_TRIES or nodes >= MOST_NODES:
            raise self._refused()

    def _refused(self) -> FoundationError:
        causes, ways = {loss.cause for loss in self.losses}, dict.fromkeys(loss.words for loss in self.losses)
        found = f"{self.name}: each of the {len(self.losses)} processes that worked on it {' or '.join(ways)}"
        if Cause.MEMORY in causes:
            return out_of_memory(found)
        if Cause.CRASH in causes:
            return DataError(
                found,
                fix="something in it makes a library crash: leave it out (of a corpus by ingest.source.withdrawn) or"
                " repair it, then run the same command again; what is finished is kept",
            )
        return TransientError(found, fix="see who ends them, then run the same command again; what is finished is kept")


def named(piece: Any) -> str:
    """What a piece is called in front of people, and not more than fits a few lines."""
    name = str(piece)
    return name if len(name) <= _NAME_CHARACTERS else f"{name[:_NAME_CHARACTERS]}..."


def out_of_memory(found: str) -> SetupError:
    """The error for a piece that does not fit the memory."""
    return SetupError(
        found,
        allowed="pieces of work that fit the memory of their machine side by side",
        fix="take fewer workers or smaller units (of ingest: workers, unit_bytes), or a machine with more memory, then"
        " run the same command again; what is finished is kept",
    )


_END: Final = object()


class Tasks(Generic[Piece]):
    """The pieces one after the other, those that lost their process first; no more are taken than are wanted.

    Args:
        say: told of each loss that another try follows.
    """

    def __init__(self, pieces: Iterable[Piece], say: Callable[[str], None]) -> None:
        self._pieces, self._say = iter(pieces), say
        self._again = deque[Task[Piece]]()

    def next(self) -> Task[Piece] | None:
        """The next one that nobody is at; None if there is none now."""
        if self._again:
            return self._again.popleft()
        piece: Any = next(self._pieces, _END)
        return None if piece is _END else Task(piece)

    def lost(self, task: Task[Piece], loss: Loss, more: str = "") -> None:
        """Put a task back whose process is gone.

        Args:
            more: that is done about it.

        Raises:
            FoundationError: it was tried often enough.
        """
        task.lost(loss)
        self._again.append(task)
        self._say(f"a process {loss.words}; what it had in hand is done again: {task.name}{more}")
