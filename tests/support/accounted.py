"""A file of a corpus, with what has to become of it: a loss is found whichever part of an ingestion made it."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backports import zstd

FILES, ROWS = "files/folder", "rows/table"
"""How ids begin: a folder of files and a folder of tables are joined."""
MOST_BYTES = 200_000
"""What a document may have in these corpora."""
GOOD = 12
"""Files that are as they should be, in every corpus."""
PACKINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": zstd.compress,
    ".xz": lzma.compress,
}


@dataclass(frozen=True)
class File:
    """A file of a corpus, and what has to become of the documents in it.

    Args:
        path: below the corpus: files/... or rows/...
        data: its bytes, or where a link leads.
        kept: of documents that must be kept, by what stands behind the file's id: words of their texts.
        lost: of documents that must be quarantined, what stands behind the file's id.
        documents: how many it holds; None where that cannot be said.
        refuses: whether the ingestion must be refused for it; None: it may be.
    """

    path: str | bytes
    data: bytes | str = field(repr=False)
    kept: Mapping[str, str] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()
    documents: int | None = 1
    refuses: bool | None = False

    @property
    def id(self) -> str:
        """The id of the document that it is, or of that it begins with."""
        path = os.fsencode(self.path).decode("utf-8", "backslashreplace")
        kind, _, below = path.partition("/")
        return f"{FILES if kind == 'files' else ROWS}/{below}"


def words(number: int) -> str:
    """A text of its own for each number."""
    return f"Text number {number} tells of heron{number}x and of little else. " + "It goes on and on. " * (number % 7)


def good_files() -> list[File]:
    """Texts without a fault."""
    return [
        File(f"files/good/{number:02d}.txt", words(number).encode(), {"": f"heron{number}x"}) for number in range(GOOD)
    ]


def write(folder: Path, files: Iterable[File]) -> None:
    """Write a corpus."""
    for kind in ("files", "rows"):
        (folder / kind).mkdir(parents=True)
    for file in files:
        path = os.path.join(os.fsencode(folder), os.fsencode(file.path))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if isinstance(file.data, str):
            os.symlink(file.data, path)
        else:
            with open(path, "wb") as sink:
                sink.write(file.data)
