"""What a packed file holds, kept in frames that can be begun anywhere: a part of it costs no more than itself.

    reviews.jsonl.gz --Copying: unpacked once, while it is cut--> frame | frame | ... | where each begins
                                                        part 7 --open_frames--> begins at its own frame

Gzip, and zstd and xz as most tools write them, can be read from their start alone: each of n parts would unpack all
before it. Frames are zstd's, each of as many bytes, so that the place of one is found without a look at the others. A
copy is scratch: about as large as the packed file, and removed when the ingestion ends.
"""

from __future__ import annotations

import hashlib
import io
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from backports import zstd

from foundation_core.errors import SetupError, TransientError
from foundation_core.files import PARTIAL, full_disk_said

FRAME_BYTES = 1 << 16
"""Of what a frame holds. Of each part up to so many are unpacked in vain."""
_LEVEL = 1
_END = struct.Struct("<QQ")
"""Behind the last frame and the list of places: bytes of what all frames hold, and where the list begins."""
_PLACE = struct.Struct("<Q")


def copy_of(folder: Path | None, document: str) -> Path | None:
    """Where the copy of a file of documents is, if there is a folder for copies."""
    return folder / hashlib.sha256(document.encode()).hexdigest()[:32] if folder else None


class Frames:
    """Writes a copy, which gets its name when it is whole.

    Args:
        held_bytes: a file of no more leaves no copy, as it is one part.

    Raises:
        DiskFullError: there is no room for it.
        SetupError: it cannot be written for another reason.
    """

    def __init__(self, path: Path, held_bytes: int) -> None:
        self._path, self._partial, self._held_bytes = path, path.with_name(path.name + PARTIAL), held_bytes
        self._waiting, self._bytes, self._places = bytearray(), 0, array("Q")
        self._sink: BinaryIO | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Add what the file holds next."""
        self._waiting += data
        self._bytes += len(data)
        if self._bytes > self._held_bytes:
            whole = len(self._waiting) - len(self._waiting) % FRAME_BYTES
            self._write(self._waiting[:whole])
            del self._waiting[:whole]

    def close(self) -> None:
        """Write the rest, and where each frame begins."""
        if self._bytes <= self._held_bytes:
            return
        self._write(self._waiting)
        with self._written() as sink:
            index = sink.tell()
            sink.write(b"".join(map(_PLACE.pack, self._places)) + _END.pack(self._bytes, index))
            sink.close()
            self._partial.replace(self._path)

    def discard(self) -> None:
        """Leave nothing."""
        if self._sink is not None:
            self._sink.close()
            self._partial.unlink(missing_ok=True)

    def _write(self, data: bytearray) -> None:
        with self._written() as sink:
            for start in range(0, len(data), FRAME_BYTES):
                self._places.append(sink.tell())
                sink.write(zstd.compress(bytes(data[start : start + FRAME_BYTES]), _LEVEL))

    @contextmanager
    def _written(self) -> Iterator[BinaryIO]:
        try:
            with full_disk_said(self._partial):
                if self._sink is None:
                    self._partial.parent.mkdir(parents=True, exist_ok=True)
                    self._sink = open(self._partial, "wb")  # noqa: SIM115, it outlives this block
                yield self._sink
        except OSError as error:  # not to be taken for damage of the file that is copied
            raise SetupError(f"{self._partial} cannot be written: {error.strerror}", fix="make room for it") from error


class _Passed(io.RawIOBase):
    """A file that is read forwards; all that is read goes into a copy too."""

    def __init__(self, file: BinaryIO, frames: Frames) -> None:
        self._read1 = getattr(file, "read1", file.read)  # gives what came before an error
        self._frames = frames

    def readable(self) -> bool:
        return True

    def readinto(self, sink: memoryview) -> int:  # type: ignore[override]  # BufferedReader gives no other buffer
        data = self._read1(len(sink))
        self._frames.write(data)
        sink[: len(data)] = data
        return len(data)


@contextmanager
def copying(file: BinaryIO, path: Path | None, held_bytes: int) -> Iterator[BinaryIO]:
    """A file to be read once from its start, of which all that is read is copied.

    What was read before an error is kept as well: parts were cut of it.

    Args:
        path: of the copy. None: it is not copied.
        held_bytes: as of `Frames`.
    """
    if path is None:
        yield file
        return
    frames = Frames(path, held_bytes)
    try:
        try:
            yield cast(BinaryIO, io.BufferedReader(_Passed(file, frames)))
        except (OSError, EOFError, ValueError):
            frames.close()
            raise
        frames.close()
    finally:
        frames.discard()


@contextmanager
def _read_of_copy(path: Path) -> Iterator[None]:
    """What cannot be read of a copy says nothing of the file that was copied."""
    try:
        yield
    except (OSError, EOFError, OverflowError, struct.error, zstd.ZstdError) as error:
        raise TransientError(
            f"{path}, into which a packed file was unpacked, cannot be read: {error}",
            fix="see that every node reaches the data folder and that its disk is sound, then run the same command"
            " again; what is finished is kept",
        ) from error


class _Framed(io.RawIOBase):
    """What a copy holds, from any place on.

    Raises:
        TransientError: it cannot be read, here or later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _read_of_copy(path):
            self._file = open(path, "rb")  # noqa: SIM115, closed with this
            self._file.seek(-_END.size, io.SEEK_END)
            self._bytes, self._index = _END.unpack(self._file.read(_END.size))
        self._place, self._number, self._frame = 0, -1, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        self._place = place + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._bytes}[whence]
        return self._place

    def readinto(self, sink: memoryview) -> int:  # type: ignore[override]  # BufferedReader gives no other buffer
        if self._place >= self._bytes:
            return 0
        number, within = divmod(self._place, FRAME_BYTES)
        data = self._held(number)[within : within + len(sink)]
        sink[: len(data)] = data
        self._place += len(data)
        return len(data)

    def _held(self, number: int) -> bytes:
        if number != self._number:
            with _read_of_copy(self._path):
                self._file.seek(self._index + number * _PLACE.size)
                (place,) = _PLACE.unpack(self._file.read(_PLACE.size))
                self._file.seek(place)
                self._number, self._frame = number, unpacked_frame(self._file)
        return self._frame

    def close(self) -> None:
        self._file.close()
        super().close()


def unpacked_frame(file: BinaryIO) -> bytes:
    """What the frame holds that begins where a file is.

    Raises:
        EOFError: the file ends within it.
        ZstdError: it is damaged.
    """
    decoder = zstd.ZstdDecompressor()
    data = b""
    while not decoder.eof:
        if not (packed := file.read(FRAME_BYTES)):
            raise EOFError("it ends within a frame")
        data += decoder.decompress(packed)
    return data


def has_copy(path: Path) -> bool:
    """Whether there is a copy at a path.

    Raises:
        TransientError: that cannot be seen.
    """
    with _read_of_copy(path):
        return path.exists()


def open_frames(path: Path) -> BinaryIO:
    """What a copy holds; going to any place of it costs a frame.

    Raises:
        TransientError: it cannot be read, here or later; this is not to be taken for damage of the file.
    """
    return cast(BinaryIO, io.BufferedReader(_Framed(path)))
