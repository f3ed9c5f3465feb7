"""The folder of all units: in use while an ingestion runs, and pruned of what none has used for a while.

Ingestions hold its lock together, pruning holds it alone: what is removed is never in use. A shard that a result has
too is one file of two names: it goes with the last of them.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from foundation_core.data.sources.kept_digests import FOLDER as KEPT_DIGESTS
from foundation_core.data.units.work import UNIT_FILE
from foundation_core.errors import SetupError
from foundation_core.files import PARTIAL, own_bytes

LOCK_FILE = "units.lock"


@contextmanager
def in_use(root: Path) -> Iterator[None]:
    """Hold the units of a folder against pruning for the block."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / LOCK_FILE, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


class Pruned(NamedTuple):
    """How many units were removed and how many are left, with the bytes that no result has too."""

    removed: int = 0
    removed_bytes: int = 0
    left: int = 0
    left_bytes: int = 0


def prune(root: Path, before: float, remove: bool = True) -> Pruned:
    """Remove the units and kept digests that nobody has used since a moment, and what killed writers left.

    Args:
        before: in seconds since the epoch.
        remove: False only counts.

    Raises:
        SetupError: an ingestion is running.
    """
    if not root.is_dir():
        return Pruned()
    with open(root / LOCK_FILE, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SetupError(
                f"an ingestion is using the units in {root}", fix="wait for its end, or stop it; then prune again"
            ) from error
        found = Pruned()
        for folder in sorted(root.glob("*/*/*")):
            size = own_bytes(folder)
            if folder.stat().st_mtime < before or folder.name.endswith(PARTIAL):
                found = found._replace(removed=found.removed + 1, removed_bytes=found.removed_bytes + size)
                if remove:
                    (folder / UNIT_FILE).unlink(missing_ok=True)  # first, so that no half of it counts
                    shutil.rmtree(folder)
            else:
                found = found._replace(left=found.left + 1, left_bytes=found.left_bytes + size)
        for path in (root / KEPT_DIGESTS).glob("*") if remove else ():
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
    return found
