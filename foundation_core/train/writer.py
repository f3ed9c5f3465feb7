"""One file written in the background: hashed as it goes, past the page cache if that can be, on the disk in the end.

The training has the cores and the disk: the thread has the lowest priority for both, and its system calls leave
Python's lock to the training.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import xxhash

from foundation_core.files import disk_is_full, found_no_room
from foundation_core.train.staging import Staged

_CHUNK_BYTES = 8 << 20
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
"""Number of the system call, which Python has no name for."""
_IDLE_CLASS = 3 << 13

Answer = TypeVar("Answer")


class Background:
    """A thread that does one thing after the other, when nobody else wants the processor."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=_step_aside)

    def start(self, task: Callable[[], Answer]) -> Future[Answer]:
        """Begin a task once those before it are done; its result or its error is in the future."""
        return self._pool.submit(task)

    def close(self) -> None:
        """Wait for what was started, and end the thread."""
        self._pool.shutdown()


def write_hashed(path: Path, staged: Staged) -> str:
    """Write a file, its bytes on the disk when this returns; their xxh3_128 in hex.

    Raises:
        DiskFullError: there is no room.
    """
    state = xxhash.xxh3_128()
    try:
        handle, direct = _opened(path)
        try:
            end = len(staged.memory) if direct else staged.size
            for first in range(0, end, _CHUNK_BYTES):
                last = min(first + _CHUNK_BYTES, end)
                state.update(staged.memory[first : min(last, staged.size)])
                _write_all(handle, staged.memory[first:last])
            if direct:  # which writes whole pages
                os.ftruncate(handle, staged.size)
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if found_no_room(path, error):
            raise disk_is_full(path, error) from error
        raise
    return state.hexdigest()


def hash_file(path: Path) -> str:
    """Hex xxh3_128 of a file."""
    state = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as source:
        while chunk := source.read(_CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()


def fsync(path: Path) -> None:
    """Return when a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _opened(path: Path) -> tuple[int, bool]:
    """A new file, and whether it is written past the page cache; not every file system can."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with contextlib.suppress(OSError):
        return os.open(path, flags | os.O_DIRECT, 0o644), True
    return os.open(path, flags, 0o644), False


def _write_all(handle: int, body: memoryview) -> None:
    done = 0
    while done < len(body):
        done += os.write(handle, body[done:])


def _step_aside() -> None:
    """Give this thread the lowest priority for the processor and for the disk, as far as the machine lets it."""
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, 19)
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        ctypes.CDLL(None).syscall(number, 1, thread, _IDLE_CLASS)
