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
TAIL_BYTES = 1 << 14
"""How much of a log's end is read first for its last event."""


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
            event = _event_or_none(line)
            if event is not None:
                yield offset, event


def last_event(folder: Path) -> dict[str, Any]:
    """The last whole event, found from the log's end, since a month's log is long; {} if there is none."""
    path = folder / EVENTS_FILE
    if not path.exists():
        return {}
    with open(path, "rb") as source:
        end = source.seek(0, os.SEEK_END)
        window = TAIL_BYTES
        while True:
            source.seek(max(0, end - window))
            for line in reversed(source.read().splitlines(keepends=True)):
                event = _event_or_none(line)
                if event is not None:
                    return event
            if window >= end:
                return {}
            window *= 2


def _event_or_none(line: bytes) -> dict[str, Any] | None:
    """What a line says, if it is whole and says something."""
    try:
        event = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
