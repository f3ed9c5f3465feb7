"""Which files are tables, by their names, and their bytes: unpacked, read from the start or from any place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath
from tempfile import TemporaryFile, gettempdir
from typing import BinaryIO, cast

from foundation_core.data.reading.frames import copying, has_copy, open_frames
from foundation_core.data.reading.unpacking import is_packed, open_unpacked, unpacked_name
from foundation_core.data.stores.places import Place
from foundation_core.errors import ConfigError
from foundation_core.files import full_disk_said
from foundation_core.specs.reading import ReadingSpec

FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".arrow": "arrow",
    ".feather": "arrow",
}  # fmt: skip
LINES = ("csv", "tsv", "jsonl")
"""Those that are read from their start on; the others are columns."""
ALLOWED = ".csv, .tsv, .jsonl, .parquet and .arrow, each also .gz, .zst and .xz"
_CHUNK_BYTES = 1 << 20


def table_format(path: Place) -> tuple[str, bool]:
    """The format that a file's name says, and whether it is packed.

    Raises:
        ConfigError: it says none.
    """
    packed = is_packed(path.name)
    name = FORMATS.get(PurePath(unpacked_name(path.name)).suffix.lower())
    if name is None:
        raise ConfigError(f"{path} is no table by its name", allowed=ALLOWED, fix="give the file one of these endings")
    return name, packed


def is_table(path: Place) -> bool:
    """Whether a file is a table by its name."""
    try:
        table_format(path)
    except ConfigError:
        return False
    return True


@contextmanager
def open_table(
    path: Place, most_expansion: int = ReadingSpec().most_expansion, copy: Path | None = None
) -> Iterator[BinaryIO]:
    """The bytes of a table, unpacked; it can be sought in.

    One of lines is sought in forwards, at the speed of unpacking, unless there is a copy. Columns are read from their
    end on, so a packed file of them is unpacked as a whole, to the disk.

    Args:
        most_expansion: bytes that may come out for each that is packed.
        copy: where it was unpacked to, if it was (`frames.copying`).

    Raises:
        DiskFullError: the disk of temporary files has no room for one of columns.
        TransientError: the copy cannot be read.
    """
    if copy is not None and has_copy(copy):
        with open_frames(copy) as framed:
            yield framed
        return
    with path.open("rb") as stream, ExitStack() as stack:
        unpacked = open_unpacked(path.name, stream, most_expansion)
        if is_packed(path.name) and FORMATS[PurePath(unpacked_name(path.name)).suffix.lower()] not in LINES:
            whole = stack.enter_context(TemporaryFile())
            with full_disk_said(Path(gettempdir()) / path.name):  # not to be taken for damage of the table
                shutil.copyfileobj(unpacked, whole)
                whole.seek(0)
            unpacked = cast(BinaryIO, whole)
        yield unpacked


@contextmanager
def copied_table(path: Place, most_expansion: int, copy: Path | None, held_bytes: int) -> Iterator[BinaryIO]:
    """The bytes of a table, to be read once from their start and copied on their way, if the table is packed.

    Args:
        copy, held_bytes: as of `frames.copying`.
    """
    kind, packed = table_format(path)
    if copy is None or not packed:
        with open_table(path, most_expansion) as stream:
            yield stream
        return
    with path.open("rb") as stream:
        unpacked = open_unpacked(path.name, stream, most_expansion)
        if kind in LINES:
            with copying(unpacked, copy, held_bytes) as passed:
                yield passed
            return
        with copying(unpacked, copy, -1) as passed:
            while passed.read(_CHUNK_BYTES):
                pass
    with open_frames(copy) as framed:
        yield framed
