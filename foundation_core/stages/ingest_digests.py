"""The digests of a source's files: which documents there are, and whether one changed.

Each is of one file alone, so the pool takes them side by side; of a small source the first process is through before
others have begun.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from foundation_core.data.documents import SourceFile
from foundation_core.data.sight import Seeing, Sight
from foundation_core.data.units import FilesPiece, digests_of
from foundation_core.errors import Stopped
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context

ALONE_BYTES = 64_000_000
"""What one process reads, and hashes, about as fast as others start."""
_PIECE_BYTES, _PIECE_FILES = 16_000_000, 1000


def file_digests(files: Sequence[SourceFile], spec: IngestSpec, context: Context, sight: Sight) -> dict[str, str]:
    """The digest of each file, by document id.

    Args:
        sight: what others must see who read files.

    Raises:
        Stopped: somebody asked.
    """
    if sum(file.bytes for file in files) <= ALONE_BYTES:
        return dict(digests_of(FilesPiece(tuple(files))))
    context.events.phase("digests")
    found = dict[str, str]()
    for some in context.pool.map(Seeing(digests_of, sight), _pieces(files), spec.workers):
        found.update(some)
        context.events.progress(len(found), len(files), "files")
        if context.stop.requested():
            raise Stopped("ingest stopped before it began to read", fix="run the same command again to continue")
    return found


def _pieces(files: Sequence[SourceFile]) -> Iterator[FilesPiece]:
    """The files in their order, about so many bytes at a time."""
    some, size = list[SourceFile](), 0
    for file in files:
        some.append(file)
        size += file.bytes
        if size >= _PIECE_BYTES or len(some) == _PIECE_FILES:
            yield FilesPiece(tuple(some))
            some, size = [], 0
    if some:
        yield FilesPiece(tuple(some))
