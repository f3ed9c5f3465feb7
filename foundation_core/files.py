"""Files that appear whole or not at all, and their digests. The last small file is the commit."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from foundation_core.errors import DataError, DiskFullError

PARTIAL = ".partial"
_FULL_BYTES = 1 << 20


@contextmanager
def committed(path: Path) -> Iterator[BinaryIO]:
    """A binary file that gets its name only when the block ends well: written beside, fsynced, renamed.

    Raises:
        DiskFullError: nothing readable is left.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if _says_full(error):
            raise disk_is_full(path, error) from error
        raise


def link_file(source: Path, path: Path) -> None:
    """Give a file a second name, which lives on when the first one goes; or a copy, where that cannot be.

    Only for files that nobody writes to: both names are one file.

    Raises:
        DiskFullError: there is no room for a copy.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        os.link(source, path)
    except OSError:  # another disk, a file system without links, a file that has as many names as it may
        with committed(path) as sink, open(source, "rb") as held:
            shutil.copyfileobj(held, sink)


def own_bytes(folder: Path) -> int:
    """Bytes that would be free without a folder: its files that have no name elsewhere."""
    found = (path.stat() for path in folder.rglob("*") if path.is_file())
    return sum(file.st_size for file in found if file.st_nlink == 1)


def found_no_room(path: Path, error: BaseException) -> bool:
    """Whether an error of writing to a path means that the disk is full.

    torch hides the reason behind a RuntimeError in changing words; then what is left on the disk decides.
    """
    return _says_full(error) or _free_bytes(path) < _FULL_BYTES


def _says_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def full_disk_said(path: Path) -> Iterator[None]:
    """A block that writes to a path, for files that need not appear whole.

    Raises:
        DiskFullError: it found no room.
    """
    try:
        yield
    except OSError as error:
        if _says_full(error):
            raise disk_is_full(path, error) from error
        raise


def _free_bytes(path: Path) -> int:
    disk = os.statvfs(next(folder for folder in path.parents if folder.exists()))
    return disk.f_bavail * disk.f_frsize


def disk_is_full(path: Path, error: BaseException) -> DiskFullError:
    """The error for a write that found no room, with what is left on that disk."""
    return DiskFullError(
        f"no room left on the disk while writing {path} ({_free_bytes(path) / 1e6:.1f} MB free): {error}",
        fix="free some space, or name another data folder with FOUNDATION_HOME; then run the same command again",
    )


def write_json(path: Path, body: Any) -> None:
    """Write a JSON file whole or not at all."""
    text = json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False)
    with committed(path) as sink:
        sink.write(text.encode() + b"\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it is not there or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there", fix="run the stage that writes it again") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}", fix="remove it and run the stage again") from error


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file."""
    with open(path, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def sha256_json(body: Any) -> str:
    """Hex sha256 of a value in canonical JSON: sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def remove_partial(folder: Path) -> None:
    """Remove what an interrupted writer left in a folder: it has no name that anyone reads."""
    for path in folder.glob(f"**/*{PARTIAL}"):
        if path.is_file():
            path.unlink(missing_ok=True)
