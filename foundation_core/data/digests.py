"""What a source holds, as one hash: every document's id with its digest, and no location."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from foundation_core.data.documents import SourceFile
from foundation_core.errors import DataError


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


def source_content(files: Sequence[SourceFile]) -> str:
    """`content_of` a source's files.

    Raises:
        DataError: as `source_digests`.
    """
    return content_of(source_digests(files))
