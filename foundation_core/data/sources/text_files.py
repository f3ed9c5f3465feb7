"""A folder's files as texts, whatever they are packed in and whichever format holds the text.

notes.html.gz    --text_entry--> "folder/notes.html.gz"
letters.tar.zst  --TextArchive-> "folder/letters.tar.zst/1898/05.html", ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foundation_core.data.archives.names import is_archive
from foundation_core.data.formats.base import check_size, versions_of
from foundation_core.data.formats.extract import format_of
from foundation_core.data.reading.unpacking import unpacked_name
from foundation_core.data.sources.documents import (
    NOT_STATED,
    SourceFile,
    files_below,
    one_file,
    patterns_of,
    reason_of,
    refused,
    source_folder,
)
from foundation_core.data.sources.text_archives import TextArchive
from foundation_core.data.sources.text_entries import text_entry
from foundation_core.data.sources.text_kinds import BY_ROWS, known_texts
from foundation_core.data.stores.places import Place
from foundation_core.data.tables.files import is_table
from foundation_core.errors import ConfigError
from foundation_core.specs import SourceSpec
from foundation_core.specs.reading import ReadingSpec

_PAGES = frozenset({".htm", ".html", ".xhtml"})
"""How names of pages of the web end."""


@dataclass(frozen=True)
class TextFile(SourceFile):
    """A file that is one text.

    Args:
        reading: what is repaired, and how large it may become.
    """

    reading: ReadingSpec

    def entries(self) -> Iterator[SourceFile]:
        """The document, read; or as one that cannot be."""
        try:
            check_size(self.bytes, self.reading, "a file")  # before it is read
            entry = text_entry(self, self.path.name, self.path.read_bytes(), self.reading)
        except (OSError, ValueError) as error:
            yield refused(self, reason_of(error))
            return
        yield entry

    def most_documents(self) -> int:
        """One."""
        return 1

    def decided_by(self) -> str:
        """What its text is taken out by."""
        return versions_of(format_of(unpacked_name(self.path.name)).libraries)


class Folder:
    """The files of a folder that match a pattern, or are texts by their names: each one text. Or one file."""

    modality, captioned = "text", False

    def __init__(self, spec: SourceSpec) -> None:
        self.root, self.pattern, self._reading = source_folder(spec, or_file=True), spec.pattern, spec.reading
        self._is_file = _is_one_file(self.root)
        self.licence = spec.licence or NOT_STATED
        which = f"that match {self.pattern}" if self.pattern else "that are texts by their names"
        self.description = "one file" if self._is_file else f"the files of a folder {which}"
        patterns = [self.root.name] if self._is_file else patterns_of(self.pattern or "")
        self.language = "Python source" if all(one.endswith(".py") for one in patterns) else "text"
        self.findings: list[str] = []

    def files(self) -> list[SourceFile]:
        """Every file that matches; without a pattern, every one that is a text by its name. `findings` say the rest.

        A file that the spec names is read whatever its name says, unless it is a table.

        Raises:
            ConfigError: it is one.
            SetupError: a library that the format of one of them needs is not installed.
        """
        listed = one_file if self._is_file else files_below
        found = listed("folder", self.root, self.pattern or "**/*")
        if self.pattern is None and self._is_file:
            if is_table(self.root):
                raise ConfigError(
                    f"source.kind=folder reads texts, and source.path={self.root} is a table",
                    fix=f"{BY_ROWS}; source.pattern='*' makes one text of it",
                )
        elif self.pattern is None:
            found, self.findings = known_texts(found)
        elif tables := [file.document for file in found if is_table(file.path)]:
            self.findings = [f"each of {len(tables)} tables is read as one text, such as {tables[0]}: {BY_ROWS}"]
        for file in found:
            format_of(unpacked_name(file.path.name))
        return [self._opened(file) for file in found]

    def _opened(self, file: SourceFile) -> SourceFile:
        opened = TextArchive if is_archive(file.path.name) else TextFile
        return opened(file.document, file.path, file.bytes, file.group, reading=self._reading)


def _is_one_file(place: Place) -> bool:
    """Whether a place is a file. A page of the web is a folder of what it links to, too; here the name decides."""
    return not place.is_dir() or (place.suffix.lower() in _PAGES and place.is_file())
