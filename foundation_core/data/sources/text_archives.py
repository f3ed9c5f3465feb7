"""Archives of texts: each member is a document, and a part of an archive is what one worker reads.

    letters.tar.zst --parts--> bytes 0 to 1 M, ... --entries--> "folder/letters.tar.zst/1898/05.html"

What has no path that could be its own (an absolute path, a second member of a name, a damaged place) is called by its
place: "folder/letters.tar.zst//1536". No member's path has two slashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from foundation_core.data.archives.listing import Aside, Cut, cuts, mark, members, most_members
from foundation_core.data.archives.members import Member
from foundation_core.data.formats.base import versions_of
from foundation_core.data.reading.frames import copy_of
from foundation_core.data.sources.documents import SourceFile, before_wildcards, entries_of, reason_of, refused
from foundation_core.data.sources.text_entries import text_entry
from foundation_core.plugins import find, names
from foundation_core.specs.reading import ReadingSpec

_PART_BYTES = 1 << 20


@dataclass(frozen=True)
class TextArchive(SourceFile):
    """An archive."""

    reading: ReadingSpec

    def decided_by(self) -> str:
        """What texts are taken out by."""
        return _libraries()

    @cached_property
    def known_digest(self) -> str:
        """Its digest, taken once for all of its parts."""
        return self.digest()

    def parts(self, unit_bytes: int, copies: Path | None = None) -> Iterator[SourceFile]:
        """Parts of its members, and what is set aside while they are listed."""
        copy = copy_of(copies, self.document)
        try:
            for found in cuts(self.path, self.reading, self.bytes, unit_bytes, copy):
                if isinstance(found, Aside):
                    yield refused(self.called(found.name or f"/{found.place}"), found.reason)
                else:
                    document = f"{self.document}//{found.start}-{found.stop}"
                    yield ArchivePart(
                        document, self.path, found.bytes, self.group, source=self.source, licence=self.licence,
                        archive=self, cut=found, copy=copy,
                    )  # fmt: skip
        except (OSError, ValueError) as error:
            yield refused(self, reason_of(error))

    def entries(self) -> Iterator[SourceFile]:
        """Its members as documents."""
        return entries_of(self, _PART_BYTES)

    def called(self, name: str, size: int = 0) -> SourceFile:
        """A document of it. The archive is the first folder of its members, unless it lies in one."""
        group = self.group or self.path.name
        return SourceFile(f"{self.document}/{name}", self.path, size, group, source=self.source, licence=self.licence)


@dataclass(frozen=True)
class ArchivePart(SourceFile):
    """Some members of an archive, one behind the other.

    Args:
        copy: where a packed one was unpacked to, if it was.
    """

    archive: TextArchive
    cut: Cut
    copy: Path | None

    def digest(self) -> str:
        """That of the archive: no byte of a packed one belongs to a member alone."""
        return self.archive.known_digest

    def may_hold(self, pattern: str) -> bool:
        """Whether a member of it may have an id that fits the pattern; of an id without wildcards, whether one has."""
        literal, inside = before_wildcards(pattern), f"{self.archive.document}/"
        if literal != pattern:
            return inside.startswith(literal) or literal.startswith(inside)
        return pattern.startswith(inside) and mark(pattern.removeprefix(inside)) in self.cut.marks

    def most_documents(self) -> int:
        """Members that have room between its places, and one that says that it cannot be read."""
        return 1 + most_members(self.path, self.cut)

    def entries(self) -> Iterator[SourceFile]:
        """Its members as documents; one that cannot be read as a refused one."""
        try:
            for member in members(self.path, self.archive.reading, *self.cut[:2], self.copy):
                if member.name and member.start not in self.cut.left_out:
                    yield self._entry(member)
        except OSError as error:  # it was there when it was listed
            yield refused(self, reason_of(error))

    def _entry(self, member: Member) -> SourceFile:
        document = self.archive.called(member.name, member.bytes)
        if member.refusal:
            return refused(document, member.refusal)
        try:
            return text_entry(document, member.name, member.read(), self.archive.reading)
        except (OSError, ValueError) as error:
            return refused(document, reason_of(error))


@cache
def _libraries() -> str:
    """Those of every format, as any may be in an archive."""
    return versions_of({library for name in names("formats") for library in find("formats", name).libraries})
