"""The event log of a stage: JSON lines beside its result, written by the job, followed by whoever watches.

It is the only thing a running job says. The launcher tails it into the terminal, into logs and into MLflow; if MLflow
was away, the same lines are replayed. It works the same for a local process and for a remote cluster.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foundation_core.files import disk_is_full

EVENTS_FILE = "events.jsonl"


class EventLog:
    """Appends events to `events.jsonl` in a stage's folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / EVENTS_FILE
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._end_half_line()

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event; a single append, so that two writers cannot mix their lines."""
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **fields}, ensure_ascii=False) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            body = line.encode()
            if os.write(handle, body) < len(body):
                raise OSError(errno.ENOSPC, "half a line was written")
        except OSError as error:
            raise disk_is_full(self.path, error) from error
        finally:
            os.close(handle)

    def _end_half_line(self) -> None:
        """Give a line that a dead writer or a full disk cut short its end, or the next event would be lost with it."""
        with open(self.path, "ab+") as log:
            if log.tell() and os.pread(log.fileno(), 1, log.tell() - 1) != b"\n":
                log.write(b"\n")

    def phase(self, name: str) -> None:
        """Say which part of the stage begins now."""
        self.write("phase", name=name)

    def progress(self, done: int, total: int, unit: str, note: str = "") -> None:
        """Say how far the current phase is."""
        self.write("progress", done=done, total=total, unit=unit, note=note)

    def say(self, text: str) -> None:
        """A line for people."""
        self.write("say", text=text)


class SilentLog(EventLog):
    """Accepts every event and keeps none: what ranks other than 0 hold."""

    def __init__(self) -> None:
        self.path = Path(os.devnull)

    def write(self, kind: str, **fields: Any) -> None:
        """Drop the event."""


def read_events(folder: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each whole event after a byte offset, with the offset behind it; a half-written last line waits.

    A line that never became an event is passed over.
    """
    path = folder / EVENTS_FILE
    if not path.exists():
        return
    with open(path, "rb") as source:
        source.seek(offset)
        for line in source:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                event = json.loads(line)
            except ValueError:
                continue
            yield offset, event
