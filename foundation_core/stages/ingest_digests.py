"""The digests of a source's files: which documents there are, and whether one changed.

Each is of one file alone, so the pool takes them side by side; of a small source the first process is through before
others have begun. What a command before it, or an ingestion that was killed, has hashed is not read again.
"""

from __future__ import annotations

from collections.abc import Sequence

from foundation_core.data.sources.digests import hashed_here, pieces
from foundation_core.data.sources.documents import SourceFile
from foundation_core.data.sources.kept_digests import KeptDigests
from foundation_core.data.sources.sight import Seeing, Sight
from foundation_core.data.units.work import FilesPiece, digests_of
from foundation_core.errors import Stopped
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context

ALONE_BYTES = 64_000_000
"""What one process reads, and hashes, about as fast as others start."""


def file_digests(files: Sequence[SourceFile], spec: IngestSpec, context: Context, sight: Sight) -> dict[str, str]:
    """The digest of each file, by document id.

    Args:
        sight: what others must see who read files.

    Raises:
        Stopped: somebody asked.
    """
    kept = KeptDigests(context.units, files)
    found = kept.known()
    new = [file for file in files if file.document not in found]
    if sum(file.bytes for file in new) <= ALONE_BYTES:
        return found | hashed_here(new, kept)
    context.events.phase("digests")
    for some in context.pool.map(Seeing(digests_of, sight), map(FilesPiece, pieces(new)), spec.workers):
        kept.keep(some)
        found.update((one.document, one.digest) for one in some)
        context.events.progress(len(found), len(files), "files")
        if context.stop.requested():
            raise Stopped("ingest stopped before it began to read", fix="run the same command again to continue")
    return found
