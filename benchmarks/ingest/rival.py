"""datatrove's way from JSONL to tokens, by a Python that has it: `rival.py FOLDER TOKENIZER WORKERS KEYS HASHES`.

FOLDER/parts holds JSONL files, one for each task. Writes FOLDER/rival.json: the seconds of each step, and which
documents stay. Compression is off everywhere. This file imports nothing of the project.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_HASHES = 1000
"""Of a sketch that datatrove makes of a whole text at a time, as it does by itself: of more, those of a long text would
take tens of GB."""
PIECE_SHINGLES = 4096


def main(folder: Path, tokenizer: str, workers: int, sketch: tuple[int, int]) -> None:
    """Run the steps one after the other, each on as many processes.

    Args:
        sketch: keys of a text, and hashes of a key.
    """
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers import JsonlWriter

    out, config = folder / "rival", MinhashConfig(num_buckets=sketch[0], hashes_per_bucket=sketch[1])
    seconds: dict[str, float] = {}

    def run(name: str, steps: list[Any], tasks: int = workers) -> None:
        start = time.perf_counter()
        logs = str(out / "logs" / name.replace(" ", "-"))
        LocalPipelineExecutor(steps, tasks=tasks, workers=workers, logging_dir=logs).run()
        seconds[name] = time.perf_counter() - start

    def dropped(name: str) -> JsonlWriter:
        return JsonlWriter(str(out / name), compression=None)

    kept, signatures, buckets, removed = (str(out / name) for name in ("kept", "signatures", "buckets", "removed"))
    filters = [
        GopherQualityFilter(exclusion_writer=dropped("quality")),
        GopherRepetitionFilter(exclusion_writer=dropped("repetition")),
    ]
    run("rules", [JsonlReader(str(folder / "parts")), *filters, JsonlWriter(kept, compression=None)])
    signature = in_pieces(MinhashDedupSignature) if sketch[0] * sketch[1] > MOST_HASHES else MinhashDedupSignature
    run("signatures", [JsonlReader(kept), signature(signatures, config)])
    run("buckets", [MinhashDedupBuckets(signatures, buckets, config=config)], tasks=config.num_buckets)
    run("clusters", [MinhashDedupCluster(buckets, removed, config=config)], tasks=1)
    copies = MinhashDedupFilter(removed, exclusion_writer=dropped("copies"))
    run("copies", [JsonlReader(kept), copies, JsonlWriter(str(out / "unique"), compression=None)])
    run(
        "tokens",
        [JsonlReader(str(out / "unique")), DocumentTokenizer(str(out / "tokens"), tokenizer, shuffle_documents=False)],
    )

    reasons = {
        row["id"]: row["metadata"]["filter_reason"] for name in ("quality", "repetition") for row in rows(out / name)
    }
    result = {
        "seconds": seconds,
        "reasons": reasons,
        "copies": sorted(row["id"] for row in rows(out / "copies")),
        "unique": sorted(row["id"] for row in rows(out / "unique")),
    }
    (folder / "rival.json").write_text(json.dumps(result))


def in_pieces(signature: type[Any]) -> type[Any]:
    """A step that makes the signatures of another, of some shingles of a text at a time."""
    import numpy as np

    class InPieces(signature):  # type: ignore[misc]
        def get_signature(self, shingles: Any) -> list[list[int]]:
            pieces = range(0, max(1, len(shingles)), PIECE_SHINGLES)
            found = [super(InPieces, self).get_signature(shingles[first : first + PIECE_SHINGLES]) for first in pieces]
            least: list[list[int]] = np.min(np.array(found, dtype=np.uint64), axis=0).tolist()
            return least

    return InPieces


def rows(folder: Path) -> Any:
    """The rows of a folder's JSONL files."""
    loads: Callable[[str], Any] = json.loads
    return (loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.open())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), (int(sys.argv[4]), int(sys.argv[5])))
