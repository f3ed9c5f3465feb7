"""Digests of files that were hashed before: another command, the stage behind it, a run after a kill read only what is
new.

    units/digests/<one process's own name>    a line a file: key, digest, check

A key stands for the file's address, its size, when it was changed, and what else decides its digest: a changed file has
another one. A process appends to a file of its own and reads those of all: nobody waits for anybody, and a line that
was cut off or damaged is passed over. Losing them costs time alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

from foundation_core.data.sources.documents import SourceFile
from foundation_core.data.stores.places import Remote
from foundation_core.identity import CODE_VERSIONS

FOLDER = "digests"
"""Below the folder of units."""
LEAST_BYTES, LEAST_FILES = 64_000_000, 2000
"""A source in folders that has no more is read about as fast as what is kept of it: nothing is."""
_SETTLED_NS = 10 * 10**9
"""A file that was changed so shortly before it was read may change once more within the same tick of a clock, and
look as before; and the clock of a file server or a store may be some seconds beside ours."""
_TOUCHED_SECONDS = 86_400  # that lines were used is noted once a day
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(rb"([0-9a-f]{32}) ([0-9a-f]{64}) ([0-9a-f]{8})\n")


class Hashed(NamedTuple):
    """A file's document id and digest, and the key to keep that under; "" where it must not be kept."""

    document: str
    digest: str
    key: str = ""


class _Seen(NamedTuple):
    """A file's key, and when it was changed, in nanoseconds; 0 where its key holds its content's own name."""

    key: str
    changed: int


def hashed(file: SourceFile) -> Hashed:
    """Read a file for its digest, which may be kept if the file is the same before and after, and was for a while."""
    begun, before = time.time_ns(), _seen(file)
    digest = file.digest()
    settled = before is not None and before.changed <= begun - _SETTLED_NS
    if before is None or not settled or not _DIGEST.fullmatch(digest) or _seen(file, now=True) != before:
        return Hashed(file.document, digest)
    return Hashed(file.document, digest, before.key)


class KeptDigests:
    """The kept digests of a source's files."""

    def __init__(self, units: Path, files: Sequence[SourceFile]) -> None:
        """
        Args:
            units: the folder of units.
            files: of the source.
        """
        self.folder, self.files = units / FOLDER, files
        self._own = self.folder / secrets.token_hex(8)
        large = len(files) > LEAST_FILES or sum(file.bytes for file in files) > LEAST_BYTES
        self._worth_it = large or any(isinstance(file.path, Remote) for file in files)

    def known(self) -> dict[str, str]:
        """Digests by document id, of the files that are as they were when they were hashed."""
        held = list(self.folder.glob("*")) if self._worth_it else []
        if not held:
            return {}
        keys = {file.document: seen.key for file in self.files if (seen := _seen(file)) is not None}
        wanted, found = {key.encode() for key in keys.values()}, dict[bytes, str]()
        for path in held:
            with suppress(OSError):  # it is not ours, or was pruned just now
                self._read(path, wanted, found)
        return {document: found[key.encode()] for document, key in keys.items() if key.encode() in found}

    def keep(self, some: Iterable[Hashed]) -> None:
        """Note what may be kept."""
        lines = b"".join(_line(one.key.encode(), one.digest.encode()) for one in some if one.key)
        if lines and self._worth_it:
            with suppress(OSError):  # no room, or a folder that may only be read: the next look takes longer
                self.folder.mkdir(parents=True, exist_ok=True)
                with open(self._own, "ab") as sink:
                    sink.write(lines)

    @staticmethod
    def _read(path: Path, wanted: set[bytes], found: dict[bytes, str]) -> None:
        """Add what a file holds of the wanted ones, and note on it that it was used."""
        used = False
        with open(path, "rb") as lines:
            for line in lines:
                if (said := _LINE.fullmatch(line)) and said[1] in wanted and _line(said[1], said[2]) == line:
                    found[said[1]], used = said[2].decode(), True
        if used and path.stat().st_mtime < time.time() - _TOUCHED_SECONDS:
            os.utime(path)


def of_one_file(file: SourceFile) -> bool:
    """Whether its digest is of the bytes of one file and of what it says of itself, and of nothing else."""
    return type(file).digest is SourceFile.digest and file.decided_by() is not None


def _seen(file: SourceFile, *, now: bool = False) -> _Seen | None:
    """How a file looks unread; None where that does not tell whether it changed.

    Args:
        now: ask its store anew, whatever a listing has said.
    """
    if not of_one_file(file):
        return None
    try:
        if isinstance(file.path, Remote):
            known = file.path.stat_now() if now else file.path.stat()
            where, size, changed = file.path.where, known.st_size, known.st_mtime_ns
            look: tuple[int | str, ...] = (changed, known.version)
        else:
            found = cast(Path, file.path).stat()
            where, size = str(cast(Path, file.path).absolute()), found.st_size
            # also when its inode changed: copies and archives bring old times of modification along
            look = (found.st_mtime_ns, found.st_ctime_ns)
            changed = max(found.st_mtime_ns, found.st_ctime_ns)
    except OSError:
        return None
    if not any(look):
        return None
    said = repr((CODE_VERSIONS["ingest"], where, size, look, file.decided_by()))
    return _Seen(hashlib.blake2b(said.encode(), digest_size=16).hexdigest(), changed)


def _line(key: bytes, digest: bytes) -> bytes:
    check = hashlib.blake2b(key + digest, digest_size=4).hexdigest()
    return b"%b %b %b\n" % (key, digest, check.encode())
