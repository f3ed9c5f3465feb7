"""What finding copies holds in memory, by the number of documents: `python -m benchmarks.ingest.choice`.

    read units without texts to speak of, one document in ten a copy --the stage's choice--> peak of a process

The memory that copies are looked for in is the same for each number (`ingest.work_memory_bytes`). What grows all the
same is printed as bytes a document.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from foundation_core.data.rules.filters import DROPPED
from foundation_core.data.shards.dataset import arrow_bytes
from foundation_core.data.sources.documents import SourceFile
from foundation_core.data.sources.modalities import QUARANTINED
from foundation_core.data.units.corpus import Part
from foundation_core.data.units.work import DROPPED_FILE, KEPT_FILE, QUARANTINED_FILE, SKETCHES_FILE, EncodePiece, Unit
from foundation_core.specs import FuzzyDedupSpec, IngestSpec, SplitSpec
from foundation_core.stages.ingest_choice import chosen, split

_PER_UNIT = 4000
_NEAR = FuzzyDedupSpec(use=True, bands=14, band_rows=8)


def main() -> int:
    """Measure each number in a process of its own, and print."""
    arguments = _arguments()
    if arguments.folder:
        print(json.dumps(measured(arguments.folder, arguments.memory_bytes)))
        return 0
    peaks = []
    for documents in arguments.documents:
        with tempfile.TemporaryDirectory(prefix="bench-choice-", dir=arguments.scratch) as name:
            write_units(Path(name), documents)
            command = [sys.executable, "-m", "benchmarks.ingest.choice", "--folder", name]
            command += ["--memory-bytes", str(arguments.memory_bytes)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        peaks.append(found["peak"])
        print(
            f"{documents:,} documents, {found['kept']:,} kept: {found['peak'] / 1e6:.0f} MB, {found['seconds']:.0f} s"
        )
    more = (peaks[-1] - peaks[0]) / (arguments.documents[-1] - arguments.documents[0])
    print(f"with {arguments.memory_bytes / 1e6:g} MB to look for copies in, each more document takes {more:.0f} bytes")
    for what, size in held().items():
        print(f"held elsewhere for each {what}: {size:.0f} bytes")
    return 0


def held() -> dict[str, float]:
    """Bytes that the first process holds for each file, unit and encoded document while it deals out work."""
    path, many = Path("/data/corpus"), 10_000

    def unit(number: int) -> Unit:
        return Unit(path / "units" / f"read-{number:05d}", f"{number:064x}")

    made: dict[str, Callable[[], object]] = {
        "file of a folder": lambda: [
            SourceFile(f"folder/section/{number:06d}.txt", path / "section" / f"{number:06d}.txt", 1000, "section")
            for number in range(many)
        ],
        "unit": lambda: [
            (Part.of(unit(number), path / f"{number:06d}"), EncodePiece(unit(number), unit(number), (), path))
            for number in range(many)
        ],
        "document that stays, in units to encode": lambda: tuple(range(1000, 1000 + many)),
    }
    sizes = {}
    for what, make in made.items():
        tracemalloc.start()
        kept = make()
        sizes[what] = tracemalloc.get_traced_memory()[0] / many
        tracemalloc.stop()
        del kept
    return sizes


def write_units(folder: Path, documents: int) -> None:
    """Read units of so many documents; one in ten is a copy, one in ten shares keys with another."""
    draw = random.Random(0)
    for number, first in enumerate(range(0, documents, _PER_UNIT)):
        rows = range(first, min(first + _PER_UNIT, documents))
        texts = [f"text {draw.randrange(first + 1) if draw.random() < 0.1 else row}" for row in rows]
        keys = [draw.getrandbits(64) for _ in range(len(rows) * _NEAR.bands)]
        for row in range(0, len(rows), 10):
            keys[row * _NEAR.bands] = draw.randrange(documents // 10)
        kept = pa.table(
            {
                "document": [f"table/a.jsonl/{row:012d}" for row in rows],
                "group": pa.repeat("", len(rows)),
                "bytes": [draw.randrange(1, 100_000) for _ in rows],
                "sha256": [hashlib.sha256(text.encode()).hexdigest() for text in texts],
                "text": pa.array(texts, pa.large_string()),
            }
        )
        sketches = pa.FixedSizeListArray.from_arrays(pa.array(keys, pa.uint64()), _NEAR.bands)
        tables = {
            KEPT_FILE: kept,
            DROPPED_FILE: DROPPED.empty_table(),
            QUARANTINED_FILE: QUARANTINED.empty_table(),
            SKETCHES_FILE: pa.table({"keys": sketches}),
        }
        unit = Unit(folder / "units" / f"{number:06d}", f"read {number}")
        unit.commit(
            {name: arrow_bytes(table) for name, table in tables.items()},
            documents=len(rows),
            changes={},
            languages={},
            cut=0,
        )


def measured(folder: Path, memory_bytes: int) -> dict[str, float]:
    """Memory and seconds of the choice among such units, and how many documents it keeps."""
    spec = IngestSpec(fuzzy_dedup=_NEAR, work_memory_bytes=memory_bytes, split=SplitSpec())
    units = [Unit(path, f"read {int(path.name)}") for path in sorted((folder / "units").iterdir())]
    before, start = _peak(), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as found:
        work: Any = SimpleNamespace(found=partial(Unit.of, Path(found)))  # workers look at paragraphs alone
        corpus = split(spec, chosen(spec, units, None, work, folder / "choice"), [])
    seconds = time.perf_counter() - start
    return {"peak": _peak() - before, "kept": sum(map(len, corpus.parts)), "seconds": seconds}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest.choice", description=__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--memory-bytes", type=int, default=64_000_000, help="ingest.work_memory_bytes")
    parser.add_argument("--scratch", type=Path, help="folder for the units; 300 bytes a document")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # the units that are measured
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
