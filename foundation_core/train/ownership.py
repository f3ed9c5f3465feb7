"""One writer of a folder of checkpoints: a mark with who it is, which only its owner keeps alive.

    take    no mark, or that of a process that is gone  -> mine, and its heart beats
    check   before a checkpoint gets its name           -> still mine?

A lease (cluster/leases.py) is held by the command that starts a training; a worker may outlive its command, or be cut
off from it by the network and go on: a new one waits for its end, as long as a watchdog may need.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from foundation_core.data.stores.depot import Depot
from foundation_core.errors import SecondWriterError

MARK_FILE = "writer.json"
BEAT_SECONDS = 5.0
GRACE_SECONDS = 180.0
"""How long a writer on another machine is waited for: one that was cut off from the others stands in a collective call
until its watchdog ends it."""
PATIENCE_SECONDS = 20.0
"""How long a mark of another machine is watched for a beat: clocks of two machines may differ, so none is compared."""


class Ownership:
    """The right to write into a folder or store.

    Args:
        patience_seconds: how long a mark of another machine may be without a beat.
        grace_seconds: how long such a writer is waited for.
    """

    def __init__(
        self,
        depot: Depot,
        patience_seconds: float = PATIENCE_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self.depot, self.patience_seconds, self.beat_seconds = depot, patience_seconds, beat_seconds
        self.grace_seconds = grace_seconds
        self.owner, self.machine = uuid.uuid4().hex, this_machine()
        self._beats = 0
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="checkpoint-writer-mark", daemon=True)

    def take(self) -> None:
        """Become the writer.

        Raises:
            SecondWriterError: another process is, and lives.
        """
        deadline = time.monotonic() + self.grace_seconds
        while (found := self._read()) is not None and self._lives(found):
            if found.get("machine") == self.machine or time.monotonic() >= deadline:
                raise SecondWriterError(
                    f"{self.depot} is being written by process {found.get('pid')} on {found.get('host')}",
                    fix="wait for that training, or stop it; then run the same command again",
                )
        self._write()
        self._heart.start()

    def check(self) -> None:
        """Return if the mark is still mine.

        Raises:
            SecondWriterError: another process took it over.
            OSError: the mark is being written, where a store shows files that are not whole: nobody's yet, ask again.
        """
        found = self._read()
        if found == {}:
            raise OSError(errno.EIO, "the mark of its writer cannot be read")
        if found is None or found.get("owner") != self.owner:
            raise SecondWriterError(
                f"another process writes to {self.depot} now: {'nobody' if found is None else found.get('host')}",
                fix="nothing, if that one is the same training started again",
            )

    def release(self) -> None:
        """Let others write."""
        self._ended.set()
        if self._heart.is_alive():
            self._heart.join()
        with suppress(OSError):
            found = self._read()
            if found is not None and found.get("owner") == self.owner:
                self.depot.remove(MARK_FILE)

    def _lives(self, found: dict[str, Any]) -> bool:
        """Whether the process of a mark is alive: here it is looked up, elsewhere its mark must change."""
        if found.get("machine") == self.machine:
            return process_start(found.get("pid", 0)) == found.get("started")
        waited, step = 0.0, min(1.0, self.patience_seconds / 5)
        while waited < self.patience_seconds:
            self._ended.wait(step)
            waited += step
            now = self._read()
            if now is None:
                return False
            if now != found:
                return True
        return False

    def _read(self) -> dict[str, Any] | None:
        try:
            body = json.loads(self.depot.read_bytes(MARK_FILE))
        except FileNotFoundError:
            return None
        except ValueError:  # half of it, by one that died while it wrote
            return {}
        return body if isinstance(body, dict) else {}

    def _write(self) -> None:
        self._beats += 1
        body = {
            "owner": self.owner,
            "host": socket.gethostname(),
            "machine": self.machine,
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
            "beats": self._beats,
        }
        self.depot.put_bytes(MARK_FILE, json.dumps(body).encode())

    def _beat(self) -> None:
        while not self._ended.wait(self.beat_seconds):
            with suppress(OSError):  # a store that is away says so where something is saved
                found = self._read()
                if found is None or found.get("owner") != self.owner:
                    return
                self._write()


def process_start(process: int) -> int | None:
    """When a process of this machine started, in the kernel's ticks; None if it is gone. Numbers are used again."""
    with suppress(OSError, ValueError, IndexError):
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    return None


def this_machine() -> str:
    """This boot of this machine, and whose process numbers these are: a container has its own."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
