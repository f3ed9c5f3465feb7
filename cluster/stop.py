"""The stop signal of a job: a file in the stage's folder, seen from every node; SIGTERM to the process makes it."""

from __future__ import annotations

import signal
from pathlib import Path

STOP_FILE = "stop"


class StopFile:
    """Says whether the stage in a folder was asked to stop."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / STOP_FILE

    def request(self) -> None:
        """Ask."""
        self.path.touch()

    def clear(self) -> None:
        """Forget an earlier request."""
        self.path.unlink(missing_ok=True)

    def requested(self) -> bool:
        """True once somebody asked."""
        return self.path.exists()

    def request_on_sigterm(self) -> None:
        """Turn SIGTERM to this process into a request, so that the stage saves before it leaves."""
        signal.signal(signal.SIGTERM, lambda *_: self.request())
