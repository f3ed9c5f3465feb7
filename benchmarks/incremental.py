"""What an ingestion costs when a folder joined, beside one from nothing: `python -m benchmarks.incremental [NAME]`.

    the standard library without email --ingest--> result          in a data folder
    with it, the tokenizer kept --ingest--> result          in that data folder and in a new one, in turns

Texts are cleaned and sketched, as those of the web are. NAME is the folder that joins (default: email). Prints seconds
of the processor (of one process that has its imports behind it, so that a busy machine matters little), units that were
there and that were done, shards that are the same to the byte, and so one file, and the room on the disk.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from foundation_core.alone import alone
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources.documents import BUILT, FOREIGN
from foundation_core.specs import FuzzyDedupSpec, IngestSpec, SourceSpec, TokenizerSpec
from foundation_core.specs.cleaning import CleaningSpec
from foundation_core.stages.ingest import ingest
from foundation_core.store import StageResult

ROUNDS = 3
UNIT_BYTES = 100_000
"""Small, for a small corpus of 12 MB: as many units as 120 MB have by default."""
CLEANING = CleaningSpec.model_validate({name: {"use": True} for name in ("encoding", "control", "personal")})


def ingested(home: Path, name: str, spec: IngestSpec) -> tuple[StageResult, float]:
    """The result of an ingestion in a data folder, and the processor's seconds."""
    begun = time.process_time()
    result = ingest(spec, {}, replace(alone(home / "ingest" / name), shared=home))
    return result, time.process_time() - begun


def same_shards(first: Path, second: Path) -> tuple[int, int]:
    """How many shards of the second result the first one has too, to the byte, and how many the second has."""
    of = [
        [
            shard["sha256"]
            for path in sorted(folder.glob("**/manifest.json"))
            for shard in ShardDataset(path.parent).manifest["shards"]
        ]
        for folder in (first, second)
    ]
    return sum(shard in set(of[0]) for shard in of[1]), len(of[1])


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder, each once, however many names it has."""
    files = (path.stat() for path in folder.rglob("*") if path.is_file())
    return sum({file.st_ino: file.st_size for file in files}.values())


def others(folder: str, names: list[str]) -> set[str]:
    """What is no part of the library itself: tests, installed packages, files that are no Python."""
    return {
        name
        for name in names
        if name in FOREIGN or name.startswith(BUILT) or not (name.endswith(".py") or Path(folder, name).is_dir())
    }


def main(name: str) -> None:
    """Measure and print."""
    with TemporaryDirectory() as folder:
        raw, later = Path(folder, "raw"), Path(folder, "later")
        shutil.copytree(sysconfig.get_paths()["stdlib"], raw, ignore=others)
        shutil.move(raw / name, later / name)
        files = list(raw.rglob("*.py"))
        source = SourceSpec(kind="folder", path=str(raw))
        rules = {"cleaning": CLEANING, "fuzzy_dedup": FuzzyDedupSpec(use=True)}
        spec = IngestSpec(source=source, **rules, shard_tokens=100_000, unit_bytes=UNIT_BYTES)
        ingested(Path(folder, "warm-up"), "0", spec)
        home = Path(folder, "home")
        ingested(home, "before", spec)
        text_bytes = size_of(raw)
        print(f"from nothing: {size_of(home) / text_bytes:.1f} bytes on the disk for each byte of {text_bytes:,}")
        kept = TokenizerSpec(kind="existing", path=str(home / "ingest" / "before" / "tokenizer.json"))
        shutil.copytree(later, raw, dirs_exist_ok=True)
        joined = spec.model_copy(update={"tokenizer": kept})
        for number in range(ROUNDS):
            again = Path(folder, f"home-{number}")
            shutil.copytree(home, again, copy_function=os.link)  # what results share stays one file
            before, new = size_of(again), Path(folder, f"new-{number}")
            result, seconds = ingested(again, "after", joined)
            fresh, fresh_seconds = ingested(new, "after", joined)
            assert result.outputs == fresh.outputs
            same, shards = same_shards(again / "ingest" / "before", again / "ingest" / "after")
            times = f"{seconds:.1f} s, from nothing {fresh_seconds:.1f} s ({fresh_seconds / seconds:.1f} times as long)"
            print(
                f"{len(list(later.rglob('*.py')))} files joined {len(files)}: {times};"
                f" units {result.summary['units']};"
                f" {same} of {shards} shards are the same;"
                f" {(size_of(again) - before) / text_bytes:.1f} more bytes on the disk for each byte",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "email")
