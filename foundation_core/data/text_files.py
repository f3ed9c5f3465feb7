"""Files as texts, whatever they are packed in and whichever format holds the text.

notes.html.gz --unpacked--> notes.html --extract--> "folder/notes.html.gz", encoding = windows-1252
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

from foundation_core.data.documents import (
    NOT_STATED,
    PYTHON_FILES,
    Entry,
    SourceFile,
    files_below,
    reason_of,
    refused,
    source_folder,
)
from foundation_core.data.formats.base import check_size
from foundation_core.data.formats.extract import extract, format_of
from foundation_core.data.unpacking import unpacked, unpacked_name
from foundation_core.spec_reading import ReadingSpec
from foundation_core.specs import SourceSpec


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
            name, data = unpacked(self.path.name, self.path.read_bytes(), self.reading.most_document_bytes)
            text, encoding = extract(name, data, self.reading)
        except (OSError, ValueError) as error:
            yield refused(self, reason_of(error))
            return
        data = text.encode()
        yield Entry(
            self.document, self.path, len(data), self.group, splits=self.splits, source=self.source,
            licence=self.licence, encoding=encoding, data=data,
        )  # fmt: skip

    def digest(self) -> str:
        """Hex sha256 of its bytes and of what its text is taken out by; or why it cannot be read."""
        libraries = sorted(format_of(unpacked_name(self.path.name)).libraries)
        said = "".join(f"{library} {version(library)}\n" for library in libraries)
        return hashlib.sha256(f"{said}{super().digest()}".encode()).hexdigest() if said else super().digest()


class Folder:
    """The files of a folder that match a pattern, each one text."""

    modality, captioned = "text", False

    def __init__(self, spec: SourceSpec) -> None:
        self.root, self.pattern, self._reading = source_folder(spec), spec.pattern or PYTHON_FILES, spec.reading
        self.licence = spec.licence or NOT_STATED
        self.description = f"the files of a folder that match {self.pattern}"
        self.language = "Python source" if self.pattern.endswith(".py") else "text"

    def files(self) -> list[SourceFile]:
        """Every file that matches.

        Raises:
            SetupError: a library that the format of one of them needs is not installed.
        """
        found = files_below("folder", self.root, self.pattern)
        for file in found:
            format_of(unpacked_name(file.path.name))
        return [TextFile(file.document, file.path, file.bytes, file.group, reading=self._reading) for file in found]
