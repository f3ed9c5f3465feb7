"""One owner per piece of work: a lease file in its folder.

A lease is taken by creating the file (which fails if it exists), kept alive by touching it, and stale when it was not
touched for a while or when its owner on this host is gone. Whoever finds a live one waits for the result instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEASE_FILE = "lease.json"
GATE_FILE = "lease.gate"
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 30.0


@contextmanager
def lease(folder: Path) -> Iterator[bool]:
    """Hold the lease of a folder for the block; yields False, at once, if somebody alive holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path, owner = folder / LEASE_FILE, uuid.uuid4().hex
    if not _take(path, owner):
        yield False
        return
    done = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, owner, done), daemon=True, name="lease-heartbeat")
    heart.start()
    try:
        yield True
    finally:
        done.set()
        heart.join()
        if _owner(path) == owner:
            path.unlink(missing_ok=True)


def is_held(folder: Path) -> bool:
    """Whether somebody alive holds the lease of a folder."""
    path = folder / LEASE_FILE
    return path.exists() and not _is_stale(path)


def _take(path: Path, owner: str) -> bool:
    body = json.dumps({"owner": owner, "host": socket.gethostname(), "pid": os.getpid()})
    with open(path.with_name(GATE_FILE), "w") as gate:
        # One at a time: of two who see the same stale lease, the slower would remove what the faster just took.
        fcntl.flock(gate, fcntl.LOCK_EX)
        if path.exists() and _is_stale(path):
            path.unlink()
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as sink:
            sink.write(body)
    return True


def _owner(path: Path) -> str:
    try:
        return str(json.loads(path.read_text())["owner"])
    except (FileNotFoundError, ValueError, KeyError):
        return ""


def _is_stale(path: Path) -> bool:
    try:
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            return True
        body = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # just released, or just being written
        return False
    return body.get("host") == socket.gethostname() and not Path(f"/proc/{body.get('pid')}").exists()


def _beat(path: Path, owner: str, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(FileNotFoundError):
            if _owner(path) == owner:  # a machine that slept too long may have lost it
                os.utime(path)
