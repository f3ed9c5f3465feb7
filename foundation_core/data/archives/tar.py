"""Tar files, header by header, also while they are unpacked.

    header, data, extended header, header, data, ..., blocks of zeros

Behind a damaged header the next whole one is looked for, as GNU tar does; archives that stand behind each other are
one. Python's tarfile reads the headers; it would hold what extends them whatever their size, and end at the first
damage.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from foundation_core.data.archives.members import DEVICE, LINK, Member, member, too_large, without_name
from foundation_core.data.formats.base import Refused
from foundation_core.data.sources.documents import reason_of
from foundation_core.specs.reading import ReadingSpec

_CHUNK_BYTES = 1 << 18
_MOST_HEADER_BYTES = 1 << 20
"""Of what extends a header: a path has 4,096 bytes at the most."""


class _Tape:
    """A stream that is read forwards and knows where it is; what cannot be read ends it, and `broken` says why."""

    def __init__(self, stream: BinaryIO, place: int) -> None:
        self.place, self.broken = place, ""
        self._read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)  # gives what came before an error
        if place:  # what is unpacked and copied on its way cannot be sought in
            with self._told():
                stream.seek(place)

    def read(self, count: int) -> bytes:
        """At most so many bytes."""
        return b"".join(self._pieces(count))

    def go_to(self, place: int) -> bool:
        """Read on up to a place; whether it is there."""
        for _ in self._pieces(place - self.place):
            pass
        return self.place == place

    def _pieces(self, count: int) -> Iterator[bytes]:
        while count and not self.broken:
            some = b""
            with self._told():
                some = self._read(min(count, _CHUNK_BYTES))
            if not some:
                return
            self.place += len(some)
            count -= len(some)
            yield some

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            self.broken = reason_of(error)


class _Extended(NamedTuple):
    """What headers of their own say of the member behind them."""

    path: str = ""
    bytes: int | None = None
    refusal: str = ""


class _Headed(NamedTuple):
    """A member's header, and where the first of those before it begins that belong to it."""

    start: int
    header: tarfile.TarInfo
    extended: _Extended


def tar_members(stream: BinaryIO, limits: ReadingSpec, start: int, stop: int | None) -> Iterator[Member]:
    """The members whose headers begin within a range of bytes; folders are none."""
    tape = _Tape(stream, start)
    for found in _headed(tape, stop):
        if isinstance(found, Member):
            yield found
            continue
        header, extended = found.header, found.extended
        stated = header.size if extended.bytes is None else extended.bytes
        size = stated if header.isreg() or header.type not in tarfile.SUPPORTED_TYPES else 0
        end = tape.place + size
        refusal = extended.refusal or _refusal(header) or too_large(size, limits)
        if not header.isdir():
            stop_place = end + -end % tarfile.BLOCKSIZE
            yield member(found.start, stop_place, extended.path or header.name, size, refusal, _reader(tape, size))
        if not tape.go_to(end):
            if refusal:  # else its reader says it
                yield without_name(tape.place, f"{tape.broken or 'truncated'}: {end - tape.place} bytes are missing")
            return
        tape.go_to(end + -end % tarfile.BLOCKSIZE)


def _headed(tape: _Tape, stop: int | None) -> Iterator[_Headed | Member]:
    """The headers of members, each with the tape behind it, and the places where there should be one."""
    start, extended, marked = tape.place, _Extended(), False
    damaged: int | None = None
    while stop is None or tape.place < stop:
        place = tape.place
        block = tape.read(tarfile.BLOCKSIZE)
        header = _header(block)
        if header is None and len(block) == tarfile.BLOCKSIZE and any(block):
            damaged = place if damaged is None else damaged
            continue
        if damaged is not None:
            yield without_name(damaged, f"damaged: no member's header begins these {place - damaged} bytes")
            start, extended, damaged = place, _Extended(), None
        if header is not None and header.type in _EXTENSIONS:
            extended = _extend(extended, header, tape)
        elif header is not None:
            yield _Headed(start, header, extended)
            start, extended, marked = tape.place, _Extended(), False
        elif len(block) == tarfile.BLOCKSIZE:  # of zeros; another archive may stand behind
            start, marked = tape.place, True
        else:
            if tape.broken or block or not marked:
                yield without_name(place, tape.broken or "truncated: it ends without the mark of its end")
            return


def _header(block: bytes) -> tarfile.TarInfo | None:
    """The header that a block is, if it is one and its checksum is right."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return header if header.size >= 0 else None


_EXTENSIONS = frozenset(
    {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
)


def _extend(known: _Extended, header: tarfile.TarInfo, tape: _Tape) -> _Extended:
    """What is known of the member behind a header that extends its own; the tape is then behind both."""
    end = tape.place + header.size
    if header.size > _MOST_HEADER_BYTES:
        known = known._replace(refusal=f"a header of {header.size} bytes")
    elif header.type == tarfile.GNUTYPE_LONGNAME:
        known = known._replace(path=_text(tape.read(header.size).partition(b"\0")[0]))
    elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
        known = _with_records(known, tape.read(header.size))
    tape.go_to(end + -end % tarfile.BLOCKSIZE)
    return known


def _with_records(known: _Extended, data: bytes) -> _Extended:
    """What is known of a member with the records of POSIX's extended header: length, keyword, = and value each."""
    while data.strip(b"\0"):
        length = re.match(rb"([1-9][0-9]{0,6}) ", data)
        end = int(length[1]) if length else 0
        keyword, equals, value = data[length.end() if length else 0 : max(0, end - 1)].partition(b"=")
        if not equals or data[end - 1 : end] != b"\n" or (keyword == b"size" and not re.fullmatch(rb"\d{1,19}", value)):
            return known._replace(refusal="a damaged header")
        if keyword == b"path":
            known = known._replace(path=_text(value))
        elif keyword == b"size":
            known = known._replace(bytes=int(value))
        elif keyword.startswith(b"GNU.sparse."):
            known = known._replace(refusal=_SPARSE)
        data = data[end:]
    return known


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


_SPARSE = "a sparse file"


def _refusal(header: tarfile.TarInfo) -> str:
    """Why a member is not to be read, or ""."""
    if header.islnk() or header.issym():
        return LINK
    if header.isdev():
        return DEVICE
    if header.type == tarfile.GNUTYPE_SPARSE:
        return _SPARSE
    return "" if header.isreg() or header.isdir() else f"a member of an unknown type, {header.type!r}"


def _reader(tape: _Tape, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        data = tape.read(size)
        if len(data) < size:
            missing = f"{size - len(data)} of its {size} bytes are missing"
            raise Refused(f"{tape.broken or 'the archive is truncated'}: {missing}")
        return data

    return read
