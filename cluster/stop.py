"""How a stage is asked to save and leave: files in its folder, seen from every node; signals to a process make them.

    Ctrl-C, SIGTERM        -> stop            saved, exit status 130
    SIGUSR2                -> stop, requeue   saved, exit status 75: the same command, given again, continues
    a node or worker goes,
    a node joins           -> restart-N       saved, and attempt N + 1 begins at once with the workers there are

The first two are for the command and for the job, the third is for one attempt of a training: what an attempt's worker
says that is ended anyway (Ray sends it SIGTERM) must not reach the next attempt.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from foundation_core.errors import Requeued, Stopped
from foundation_core.files import read_json, write_json

STOP_FILE = "stop"
RESTART_FILE = "restart-{attempt}"
_REQUEUE = "requeue"


class RequeueInterrupt(KeyboardInterrupt):
    """SIGUSR2 came: the machine is wanted, and whoever runs the queue will give the same command again."""


class Restart(NamedTuple):
    """Why another attempt is to begin.

    Args:
        failure: its class, or empty where the number of workers changes.
    """

    failure: str
    what: str


class StopFile:
    """Says whether the stage in a folder was asked to stop.

    Args:
        attempt: names the attempt of a training whose requests to begin anew count as well; empty: none do.
    """

    def __init__(self, folder: Path, attempt: str = "") -> None:
        self.folder, self.path, self.attempt = folder, folder / STOP_FILE, attempt
        self._restart = folder / RESTART_FILE.format(attempt=attempt) if attempt else None

    def request(self, *, requeue: bool = False) -> None:
        """Ask for the stage's end.

        Args:
            requeue: the same command will be given again without a person.
        """
        self.path.write_text(_REQUEUE if requeue else "")

    def request_restart(self, reason: Restart) -> None:
        """Ask this attempt to save and leave, so that another one can begin."""
        assert self._restart is not None
        write_json(self._restart, reason._asdict())

    def restart_reason(self) -> Restart | None:
        """What `request_restart` was told last; None if nobody asked."""
        return Restart(**read_json(self._restart)) if self._restart is not None and self._restart.exists() else None

    def clear(self) -> None:
        """Forget all earlier requests."""
        for path in (self.path, *self.folder.glob(RESTART_FILE.format(attempt="*"))):
            path.unlink(missing_ok=True)

    def end_requested(self) -> bool:
        """True once somebody asked for the stage's end."""
        return self.path.exists()

    def requested(self) -> bool:
        """True once somebody asked for the end of the stage or of this attempt."""
        return self.path.exists() or (self._restart is not None and self._restart.exists())

    def ended_by(self, error: Stopped) -> Stopped:
        """The error of a stage that was asked to stop, as what the asker wanted."""
        wanted = self.path.exists() and self.path.read_text() == _REQUEUE
        return Requeued(error.found, fix=error.fix) if wanted else error

    def request_on_signals(self) -> None:
        """Turn SIGINT, SIGTERM and SIGUSR2 to this process into requests, so that the stage saves before it leaves."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.request())
        signal.signal(signal.SIGUSR2, lambda *_: self.request(requeue=True))

    def restart_on_signals(self, failure: str) -> None:
        """Turn the same signals to a worker into a request for another attempt: its node may be about to go."""

        def heard(number: int, _: Any) -> None:
            what = f"process {os.getpid()} on {socket.gethostname()} got {signal.Signals(number).name}"
            self.request_restart(Restart(failure, what))

        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            signal.signal(each, heard)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it in every process


def interrupt_on_signals() -> None:
    """Turn SIGTERM and SIGUSR2 to a command into interruptions as by Ctrl-C; a second one cannot disturb the saving."""
    signal.signal(signal.SIGTERM, _interrupt(KeyboardInterrupt))
    signal.signal(signal.SIGUSR2, _interrupt(RequeueInterrupt))


def _interrupt(kind: type[KeyboardInterrupt]) -> Callable[..., Any]:
    def interrupt(*_: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        raise kind

    return interrupt
