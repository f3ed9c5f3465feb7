"""Packed files, unpacked within bounds: .gz, .zst and .xz, also one inside another.

    "notes.txt.gz", bytes --unpacked--> "notes.txt", bytes
    "rows.jsonl.zst", file --open_unpacked--> a file of what it holds, unpacked as it is read

What the name says decides. Members behind each other are one file, as the formats allow; so are zeros behind a gzip
member or an xz stream. Everything else behind the end, and an end that is missing, is refused with its place.
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol, cast

MOST_LAYERS = 2
"""Packings around one file."""
FREE_BYTES = 1 << 20
"""What may come out of any file, however little it holds: short repetitive texts pack to almost nothing."""
_CHUNK_BYTES = 1 << 16
_WINDOW_BYTES = 1 << 27
"""What a decoder may hold: xz -9 needs half of it, zstd --long all."""
_LONGEST_MARK = 6


class _Decoder(Protocol):
    """Decodes one member."""

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out without more going in."""

    @property
    def unused_data(self) -> bytes:
        """What was given to it and stands behind its end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most so many bytes more of what it holds."""


class _Gzip:
    """zlib's decoder in the shape of the other two."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self.eof and not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)


def _zstd() -> _Decoder:
    from backports import zstd

    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_BYTES.bit_length() - 1})


def _xz() -> _Decoder:
    return cast(_Decoder, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW_BYTES))


@dataclass(frozen=True)
class _Packing:
    """A way to pack.

    Args:
        starts: whether bytes begin a member.
        padded: whether zeros may stand behind a member.
    """

    name: str
    decoder: Callable[[], _Decoder]
    starts: Callable[[bytes], bool]
    padded: bool


def _starts_zstd(data: bytes) -> bool:
    """A frame, or one of sixteen that are skipped."""
    return data[:4] == b"\x28\xb5\x2f\xfd" or (data[1:4] == b"\x2a\x4d\x18" and data[0] >> 4 == 5)


_PACKINGS = {
    ".gz": _Packing("gzip", _Gzip, lambda data: data[:2] == b"\x1f\x8b", padded=True),
    ".zst": _Packing("zstd", _zstd, _starts_zstd, padded=False),
    ".xz": _Packing("xz", _xz, lambda data: data[:6] == b"\xfd7zXZ\0", padded=True),
}


def unpacked(name: str, data: bytes, most_bytes: int) -> tuple[str, bytes]:
    """A file's name without the endings of its packing, and what it holds; a file that is not packed as it is.

    Args:
        most_bytes: that it may hold.

    Raises:
        ValueError: it is no such file, it is not whole, or it holds more; the reason names the place.
    """
    inner, packings = _layers(name)
    if not packings:
        return name, data
    file: BinaryIO = io.BytesIO(data)
    for packing in packings:
        file = io.BufferedReader(_Unpacked(packing, file, _Bytes(most_bytes)))
    return inner, file.read()


def open_unpacked(name: str, raw: BinaryIO, most_expansion: int) -> BinaryIO:
    """A file of what a packed file holds, unpacked while it is read; one that is not packed as it is.

    Args:
        raw: the packed file, open at its start.
        most_expansion: bytes that may come out for each that was read.

    Raises:
        ValueError: as `unpacked`, here or while it is read.
    """
    _, packings = _layers(name)
    if not packings:
        return raw
    counted = _Counted(raw)
    file = cast(BinaryIO, counted)
    for packing in packings:
        file = io.BufferedReader(_Unpacked(packing, file, _Expansion(counted, most_expansion)))
    return file


def most_unpacked(packed_bytes: int, most_expansion: int) -> int:
    """Bytes that may come out of so many."""
    return max(FREE_BYTES, most_expansion * packed_bytes)


def unpacked_name(name: str) -> str:
    """A name without the endings of its packings."""
    while is_packed(name):
        name = name.removesuffix(PurePosixPath(name).suffix)
    return name


def is_packed(name: str) -> bool:
    """Whether a name ends as those of packed files do."""
    return PurePosixPath(name).suffix.lower() in _PACKINGS


def _layers(name: str) -> tuple[str, list[_Packing]]:
    """The name within, and the packings around it, the outermost first."""
    packings = []
    while is_packed(name):
        ending = PurePosixPath(name).suffix
        packings.append(_PACKINGS[ending.lower()])
        name = name.removesuffix(ending)
    if len(packings) > MOST_LAYERS:
        raise ValueError(f"packed {len(packings)} times; allowed: {MOST_LAYERS}")
    return name, packings


class _Bound(Protocol):
    """Says how much may come out."""

    def check(self, packing: str, out_bytes: int) -> None:
        """Refuse what has become too much."""


@dataclass(frozen=True)
class _Bytes:
    most_bytes: int

    def check(self, packing: str, out_bytes: int) -> None:
        if out_bytes > self.most_bytes:
            raise ValueError(f"{packing} that unpacks to more than {self.most_bytes} bytes")


class _Counted:
    """A file that knows how many bytes were read of it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self.read_bytes = raw, 0

    def read(self, most_bytes: int) -> bytes:
        data = self._raw.read(most_bytes)
        self.read_bytes += len(data)
        return data

    def seek(self, place: int) -> None:
        self._raw.seek(place)
        self.read_bytes = place


@dataclass(frozen=True)
class _Expansion:
    packed: _Counted
    most_expansion: int

    def check(self, packing: str, out_bytes: int) -> None:
        if out_bytes > most_unpacked(self.packed.read_bytes, self.most_expansion):
            raise ValueError(f"{packing} that unpacks to more than {self.most_expansion} times its size")


class _Unpacked(io.RawIOBase):
    """What a packed file holds; in memory are a chunk of it and the decoder's window."""

    def __init__(self, packing: _Packing, packed: BinaryIO, bound: _Bound) -> None:
        self._packing, self._packed, self._bound = packing, packed, bound
        self._start()

    def _start(self) -> None:
        self._waiting, self._read_bytes, self._out_bytes = b"", 0, 0
        self._decoder: _Decoder | None = None
        self._start_bytes, self._ended = 0, False

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is: forwards at the speed of unpacking, backwards from the start."""
        return True

    def tell(self) -> int:
        """Bytes that came out."""
        return self._out_bytes

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place from the start."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a packed file is sought in from its start alone")
        if place < self._out_bytes:
            self._packed.seek(0)
            self._start()
        while self._out_bytes < place and self.read(min(place - self._out_bytes, _CHUNK_BYTES)):
            pass
        return self._out_bytes

    def readinto(self, sink: memoryview) -> int:  # type: ignore[override]  # BufferedReader gives no other buffer
        """Fill a buffer with what comes next; 0 at the end."""
        while not self._ended:
            data = self._next(len(sink))
            if data:
                self._out_bytes += len(data)
                self._bound.check(self._packing.name, self._out_bytes)
                sink[: len(data)] = data
                return len(data)
        return 0

    def _next(self, most_bytes: int) -> bytes:
        """What comes next, or nothing if the decoder needs another look."""
        name = self._packing.name
        if self._decoder is None:
            self._begin()
            return b""
        if self._decoder.needs_input and not self._waiting and not self._fill():
            where = f"it ends at byte {self._read_bytes}, within the part that began at {self._start_bytes}"
            raise ValueError(f"truncated {name}: {where}")
        chunk, self._waiting = (self._waiting, b"") if self._decoder.needs_input else (b"", self._waiting)
        try:
            data = self._decoder.decompress(chunk, most_bytes)
        except (EOFError, MemoryError):
            raise
        except Exception as error:  # each library has an error of its own
            raise ValueError(
                f"broken {name}: the part that began at byte {self._start_bytes} does not decode within"
                f" {_WINDOW_BYTES >> 20} MiB of memory"
            ) from error
        if self._decoder.eof:
            self._waiting, self._decoder = self._decoder.unused_data, None
        return data

    def _begin(self) -> None:
        """Begin the member that comes next, or find that there is none."""
        first = self._read_bytes == 0
        self._skip_padding(first)
        self._start_bytes = self._read_bytes - len(self._waiting)
        if not self._waiting and not first:
            self._ended = True
        elif not self._waiting:
            raise ValueError(f"truncated {self._packing.name}: it is empty")
        elif not self._packing.starts(self._waiting):
            found = self._waiting[:4].hex(" ")
            where = "it begins with" if first else f"behind its end, at byte {self._start_bytes}, stands"
            raise ValueError(f"not {self._packing.name}: {where} {found}")
        else:
            self._decoder = self._packing.decoder()

    def _skip_padding(self, first: bool) -> None:
        """Have enough waiting to know a member by, without the zeros in front of it."""
        while True:
            if self._packing.padded and not first:
                self._waiting = self._waiting.lstrip(b"\0")
            if len(self._waiting) >= _LONGEST_MARK or not self._fill():
                return

    def _fill(self) -> bool:
        """Read on; whether there was anything."""
        data = self._packed.read(_CHUNK_BYTES)
        self._waiting += data
        self._read_bytes += len(data)
        return bool(data)
