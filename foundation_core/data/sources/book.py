"""One long text in its own order: passages of it are documents, and how it ends is the test.

    book.txt   | passage | passage | ... | passage |  test  |  test  | ...
                         ^ at the first empty line, or else line's end, behind so many characters

A model of one book is judged by how well it goes on where its training ended. So the last tenth of the characters is
the test, to the character, whatever the hashes of ids would say of it.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from foundation_core.data.sources.documents import NOT_STATED, SourceFile
from foundation_core.data.split import Split
from foundation_core.data.stores.places import located
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import SourceSpec

PASSAGE_CHARACTERS = 10_000
"""After which a passage ends as soon as it can."""
TEST_FRACTION = 0.1
_ENDS = (re.compile(r"\n\s*\n"), re.compile(r"\n"))


@dataclass(frozen=True)
class Passage(SourceFile):
    """A run of the text's bytes.

    Args:
        first_byte: where it begins in the file.
    """

    first_byte: int

    def read(self) -> builtins.bytes:
        """Its bytes."""
        with self.path.open("rb") as file:
            file.seek(self.first_byte)
            passage: builtins.bytes = file.read(self.bytes)
        return passage


class Book:
    """A text file of UTF-8."""

    modality, captioned = "text", False
    language = NOT_STATED

    def __init__(self, spec: SourceSpec) -> None:
        if spec.path is None:
            raise ConfigError("source.kind=book needs source.path", fix="name a text file: --ingest.source.path FILE")
        self.path = located(spec.path)
        self.description = f"one text, {self.path.name}: its passages in order, the last tenth as the test"
        self.licence = spec.licence or NOT_STATED

    def files(self) -> list[SourceFile]:
        """Every passage, in order.

        Raises:
            DataError: there is no such file, or it is no text of UTF-8.
        """
        try:
            text = self.path.read_bytes().decode()
        except OSError as error:
            fix = "correct source.path (--ingest.source.path FILE)"
            raise DataError(f"{self.path} cannot be read: {error.strerror}", fix=fix) from error
        except UnicodeDecodeError as error:
            fix = "convert it, or read it with source.kind=folder, which knows old encodings"
            raise DataError(f"{self.path} is no UTF-8: byte {error.start}", fix=fix) from error
        return list(self._passages(text))

    def _passages(self, text: str) -> Iterator[Passage]:
        trained, start, first_byte = int(len(text) * (1 - TEST_FRACTION)), 0, 0
        while start < len(text):
            is_test = start >= trained
            end = passage_end(text, start, len(text) if is_test else trained)
            size = len(text[start:end].encode())
            document = f"{PurePosixPath(self.path.name).stem}/{start:012d}"  # of equal length: sorted as they stand
            splits: tuple[Split, ...] = ("test",) if is_test else ("train", "validation")
            yield Passage(document, self.path, size, "", splits=splits, first_byte=first_byte)
            start, first_byte = end, first_byte + size


def passage_end(text: str, start: int, last: int) -> int:
    """Where the passage ends that starts there: behind an empty line, else a line, within twice its length."""
    least, most = start + PASSAGE_CHARACTERS, min(start + 2 * PASSAGE_CHARACTERS, last)
    for end in _ENDS:
        if found := end.search(text, least, most):
            return found.end()
    return most
