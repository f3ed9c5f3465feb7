"""Zip files: the directory at the end says what is in one, and each member is read within bounds."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import IO, BinaryIO, cast

from foundation_core.data.archives.members import DEVICE, LINK, Member, member, too_large, without_name
from foundation_core.data.formats.base import Refused, reasons
from foundation_core.data.formats.zipped import unzipped
from foundation_core.data.stores.places import Place
from foundation_core.specs.reading import ReadingSpec

_MOST_DIRECTORY_BYTES = 1 << 25
"""Of a directory, which is held as a whole: about 300,000 members."""


def zip_members(path: Place, limits: ReadingSpec, start: int, stop: int | None) -> Iterator[Member]:
    """The members of those numbers in the directory; folders are none."""
    known = path.stat()
    try:
        archive = _opened(path, (known.st_mtime_ns, known.st_size))
    except ValueError as error:
        yield without_name(0, str(error))
        return
    for number, info in enumerate(archive.infolist()[start:stop], start):
        refusal = _refusal(info) or too_large(info.file_size, limits)
        if not info.is_dir() or info.file_size:
            name = info.orig_filename  # zipfile ends a name at its first NUL
            yield member(number, number + 1, name, info.file_size, refusal, partial(_unzipped, archive, info, limits))


@lru_cache(maxsize=1)
def _opened(path: Place, state: tuple[int, int]) -> zipfile.ZipFile:
    """A zip file with its directory, which the parts that are read behind each other share.

    Args:
        state: when the file was changed, and its size; another one is another file.

    Raises:
        ValueError: it is none.
    """
    with reasons("a zip archive"):
        try:
            return zipfile.ZipFile(cast(IO[bytes], _Bounded(path.open("rb"))))
        except zipfile.BadZipFile as error:
            raise Refused(
                "a zip archive that is truncated or broken: it ends without the list of what it holds"
            ) from error


class _Bounded:
    """A file of which no more is read at once than a directory may have; it is closed with the archive."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, count: int = -1) -> bytes:
        """At most so many bytes."""
        if count > _MOST_DIRECTORY_BYTES:
            raise Refused(f"a zip archive whose directory has more than {_MOST_DIRECTORY_BYTES} bytes")
        return self._stream.read(count) if count >= 0 else self._stream.read()  # not every store's file takes -1

    def __del__(self) -> None:
        self._stream.close()


def _refusal(info: zipfile.ZipInfo) -> str:
    """Why a member is not to be read, or "". Its upper attributes are the mode of a Unix file, where it has one."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return LINK
    if info.is_dir():
        return "a folder that holds bytes"
    return DEVICE if kind not in (0, stat.S_IFREG, stat.S_IFDIR) else ""


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: ReadingSpec) -> bytes:
    with reasons("a member"):
        try:
            return b"".join(unzipped(archive, info, limits, "it"))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise Refused("damaged: it is not what the archive's directory says of it") from error
