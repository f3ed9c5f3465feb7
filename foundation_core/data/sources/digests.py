"""What a source holds, as one hash: every document's id with its digest, and no location."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from foundation_core.data.sources.documents import SourceFile
from foundation_core.data.sources.kept_digests import Hashed, KeptDigests, hashed, of_one_file
from foundation_core.errors import DataError

_PIECE_BYTES, _PIECE_FILES = 16_000_000, 100
_THREADS = 16
"""That read at once: a store answers many requests side by side, and hashing lets other threads go on."""


def source_digests(
    files: Sequence[SourceFile], of: Callable[[Sequence[SourceFile]], Mapping[str, str]] | None = None
) -> dict[str, str]:
    """The digest of every file of a source, by document id, in their order.

    Args:
        of: how they are found, by document id. None: here, one after the other.

    Raises:
        DataError: there is no document at all, or one id stands for two files.
    """
    seen = set[str]()
    for file in files:
        if file.document in seen:
            raise DataError(f"the source lists {file.document} twice", fix="give each file an id of its own")
        seen.add(file.document)
    if not files:
        raise DataError(
            "the source is empty: no file matches", fix="check source.path and source.pattern, or choose another source"
        )
    found = of(files) if of is not None else {file.document: file.digest() for file in files}
    return {file.document: found[file.document] for file in files}


def content_of(digests: Mapping[str, str]) -> str:
    """Hex digest of what a source holds: every document's id with its digest, and no location."""
    content = hashlib.sha256()
    for document, digest in digests.items():
        content.update(f"{document}\0{digest}\n".encode())
    return content.hexdigest()


def source_content(files: Sequence[SourceFile], units: Path | None = None) -> str:
    """`content_of` a source's files.

    Args:
        units: folder of units, where digests are kept: only what is new is read. None: all is read.

    Raises:
        DataError: as `source_digests`.
    """
    if units is None:
        return content_of(source_digests(files))
    return content_of(source_digests(files, partial(_kept_or_hashed, units=units)))


def _kept_or_hashed(files: Sequence[SourceFile], units: Path) -> dict[str, str]:
    kept = KeptDigests(units, files)
    found = kept.known()
    return found | hashed_here([file for file in files if file.document not in found], kept)


def hashed_here(files: Sequence[SourceFile], kept: KeptDigests) -> dict[str, str]:
    """The digest of each file, by document id, read by threads of this process and kept.

    Files that are read together with others take turns: what reads them is open once, for one reader.
    """
    found = {file.document: file.digest() for file in files if not of_one_file(file)}
    threads = ThreadPoolExecutor(_THREADS)
    try:
        for some in threads.map(_each_hashed, pieces([file for file in files if of_one_file(file)])):
            kept.keep(some)
            found.update((one.document, one.digest) for one in some)
    finally:
        threads.shutdown(cancel_futures=True)
    return found


def _each_hashed(files: Sequence[SourceFile]) -> list[Hashed]:
    return [hashed(file) for file in files]


def pieces(files: Sequence[SourceFile]) -> Iterator[tuple[SourceFile, ...]]:
    """The files in their order, about so many bytes at a time."""
    some, size = list[SourceFile](), 0
    for file in files:
        some.append(file)
        size += file.bytes
        if size >= _PIECE_BYTES or len(some) == _PIECE_FILES:
            yield tuple(some)
            some, size = [], 0
    if some:
        yield tuple(some)
