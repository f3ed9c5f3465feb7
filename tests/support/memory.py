"""A group of processes that may have next to no memory: whoever is put into it is killed by the kernel, for real."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

GROUPS = Path("/sys/fs/cgroup/memory")


@contextmanager
def starving_group(limit_bytes: int) -> Iterator[Path]:
    """The file that takes the process ids; the test is left out where this machine has no such groups for us."""
    group = GROUPS / f"foundation-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
    except OSError as error:
        pytest.skip(f"no memory group can be made here: {error}")
    try:
        yield group / "cgroup.procs"
    finally:
        deadline = time.monotonic() + 30
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        group.rmdir()
