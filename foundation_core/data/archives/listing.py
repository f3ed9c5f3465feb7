"""Archives, listed and read a member at a time: nothing is written, no link is followed, no name leads anywhere.

    texts.tar.zst --members--> Member("a/b.txt", at byte 1,536) --read--> bytes | ValueError(reason)
                  --cuts-----> parts of bounded bytes, read apart; what has no name of its own, set aside

A place is a byte of an unpacked tar file, or a number in the directory of a zip file.
"""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from foundation_core.data.archives.members import Member
from foundation_core.data.archives.names import archive_kind, long_name
from foundation_core.data.archives.tar import tar_members
from foundation_core.data.archives.zip import zip_members
from foundation_core.data.reading.frames import copying, has_copy, open_frames
from foundation_core.data.reading.unpacking import FREE_BYTES, is_packed, open_unpacked
from foundation_core.data.stores.places import Place
from foundation_core.specs.reading import ReadingSpec

_HEADER_BYTES = 512
"""Of a member of a tar file; none takes less."""


class Cut(NamedTuple):
    """A part of an archive.

    Args:
        start, stop: places.
        bytes: of its members.
        left_out: places of members within it that are set aside by their names.
        marks: `mark` of each of its other members, one behind the other.
    """

    start: int
    stop: int
    bytes: int
    left_out: frozenset[int]
    marks: builtins.bytes


class Aside(NamedTuple):
    """What is set aside when an archive is listed: a member by its name, or a place of it without one."""

    place: int
    name: str
    reason: str


def members(
    path: Place, limits: ReadingSpec, start: int = 0, stop: int | None = None, copy: Path | None = None
) -> Iterator[Member]:
    """The members of an archive from a place to another, folders left out.

    A member without a name is a place that cannot be read, and is met only where the whole archive is walked.

    Args:
        copy: where a packed tar file was unpacked to, if it was.

    Raises:
        OSError: it cannot be opened.
    """
    if archive_kind(path.name) == "zip":
        yield from zip_members(path, limits, start, stop)
    elif copy is not None and has_copy(copy):
        with open_frames(copy) as framed:
            yield from tar_members(framed, limits, start, stop)
    else:
        with path.open("rb") as stream:
            unpacked = open_unpacked(long_name(path.name), stream, limits.most_expansion)
            yield from tar_members(unpacked, limits, start, stop)


def _members_copied(path: Place, limits: ReadingSpec, copy: Path | None, held_bytes: int) -> Iterator[Member]:
    """All members of an archive; what of it is packed as a whole is copied as it is unpacked."""
    if copy is None or not is_packed(long_name(path.name)):
        yield from members(path, limits)
        return
    with path.open("rb") as stream:
        unpacked = open_unpacked(long_name(path.name), stream, limits.most_expansion)
        with copying(unpacked, copy, held_bytes) as passed:
            yield from tar_members(passed, limits, 0, None)


def most_members(path: Place, cut: Cut) -> int:
    """How many members a part of an archive may have: of a zip file by its directory, of a tar file by headers."""
    places = cut.stop - cut.start
    return places if archive_kind(path.name) == "zip" else -(-places // _HEADER_BYTES)


def mark(name: str) -> bytes:
    """Four bytes that stand for a member's name in a part: a name that has another's only makes its part be read."""
    return _digest(name)[:4]


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def cuts(
    path: Place, limits: ReadingSpec, archive_bytes: int, part_bytes: int, copy: Path | None = None
) -> Iterator[Cut | Aside]:
    """The parts of an archive, none of much more than `part_bytes`, and what is in none of them.

    Args:
        archive_bytes: its size. What its members have together is bounded by it, as members may share their bytes.
        copy: where to unpack a packed tar file to, which is then unpacked once and not for each part.

    Raises:
        OSError: it cannot be opened.
    """
    known, total = set[bytes](), 0
    start: int | None = None
    stop = size = 0
    left_out, marks = set[int](), bytearray()
    for member in _members_copied(path, limits, copy, part_bytes):
        if not member.name:
            yield Aside(member.start, "", member.refusal)
            continue
        name = _digest(member.name)
        twice = name in known
        known.add(name)
        total += 0 if twice or member.refusal else member.bytes
        if total > max(FREE_BYTES, limits.most_expansion * archive_bytes):
            reason = (
                f"it and the members before it unpack to more than {limits.most_expansion} times the archive's size"
            )
            yield Aside(member.start, "" if twice else member.name, reason)
            continue
        if twice:
            yield Aside(member.start, "", f"a second member is called {member.name!r}")
            left_out.add(member.start)
        else:
            marks += mark(member.name)
        start = member.start if start is None else start
        stop, size = member.stop, size + (0 if twice or member.refusal else member.bytes)
        if size >= part_bytes:
            yield Cut(start, stop, size, frozenset(left_out), bytes(marks))
            start, size, left_out, marks = None, 0, set(), bytearray()
    if start is not None:
        yield Cut(start, stop, size, frozenset(left_out), bytes(marks))
