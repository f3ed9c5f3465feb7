"""What an ingestion needs of a machine: room on the disk and memory, by arithmetic on its spec."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foundation_core.data.sources.documents import open_source
from foundation_core.errors import DiskFullError
from foundation_core.files import own_bytes
from foundation_core.specs import LOCAL_WORKERS, IngestSpec

if TYPE_CHECKING:
    from foundation_core.stages.contract import Context  # brings torch, which a preflight can do without

DISK_FACTOR = 4.2
"""Bytes on disk for each byte of the source, as `benchmarks.incremental` measures them: the text and its tokens, in
units and in shards. Units that an earlier ingestion left, and that cost nothing again, are not subtracted."""

FIRST_BYTES, WORKER_BYTES, UNIT_FACTOR = 450_000_000, 450_000_000, 10
"""Memory of the first process; of a worker with rules and sketches, before it reads; and for each byte of its unit.
`python -m benchmarks.ingest.memory CORPUS.jsonl --coefficients` measures them."""


def memory_bytes(spec: IngestSpec) -> int:
    """What all processes hold together, about; the size of the source has no part in it.

    `python -m benchmarks.ingest.memory` measures it.
    """
    workers = (spec.workers or LOCAL_WORKERS) * (WORKER_BYTES + UNIT_FACTOR * spec.unit_bytes)
    return FIRST_BYTES + spec.work_memory_bytes + workers


def with_need(error: DiskFullError, spec: IngestSpec, context: Context) -> DiskFullError:
    """The error for a disk that filled, with what the whole ingestion takes and what of it is there."""
    source = sum(file.bytes for file in open_source(spec.source).files())
    result, units = _size(context.folder), own_bytes(context.units)
    return DiskFullError(
        f"{error.found}\n  The ingestion of {_mb(source)} takes about {_mb(round(DISK_FACTOR * source))};"
        f" {_mb(result)} are there in {context.folder}, and {_mb(units)} of all ingestions in {context.units};"
        " what is finished is kept",
        fix=error.fix,
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
