"""Copies found in memory, as a reference for those that are found on disk; and parts of a corpus made of texts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from foundation_core.data.copies.losses import Losses, without_copies
from foundation_core.data.copies.minhash import Sketch, similarity
from foundation_core.data.copies.spill import Scratch
from foundation_core.data.shards.dataset import arrow_bytes
from foundation_core.data.units.corpus import Part
from foundation_core.data.units.work import KEPT_FILE, SKETCHES_FILE, Unit
from foundation_core.specs import FuzzyDedupSpec

_IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where a sync costs nothing."""

Dropped = dict[int, tuple[int, float]]
"""Of each text that is dropped, by its number: that of the text that stays in its place, and the value."""

ROOM = 1 << 24
"""Memory in which a few texts need no partitions."""


def parts_of(folder: Path, texts: Sequence[str], per_part: int, spec: FuzzyDedupSpec | None = None) -> list[Part]:
    """Read units of so many texts each, whose ids are d/0000 and so on, with sketches if they are to be compared."""
    parts = []
    for first in range(0, len(texts), per_part):
        some = texts[first : first + per_part]
        column = pa.array(some, pa.large_string())
        kept = pa.table(
            {
                "document": [f"d/{first + at:04d}" for at in range(len(some))],
                "group": pa.repeat("", len(some)),
                "bytes": [len(text.encode()) for text in some],
                "sha256": [hashlib.sha256(text.encode()).hexdigest() for text in some],
                "text": column,
            }
        )
        files = {KEPT_FILE: arrow_bytes(kept)}
        if spec is not None:
            files[SKETCHES_FILE] = arrow_bytes(pa.table({"keys": Sketch.of(spec)(column)}))
        unit = Unit(folder / f"read-{first:05d}", "read")
        unit.commit(files)
        parts.append(Part.of(unit, folder / f"part-{first:05d}"))
    return parts


@contextmanager
def scratch_parts(
    texts: Sequence[str], per_part: int, spec: FuzzyDedupSpec | None = None, memory_bytes: int = ROOM
) -> Iterator[tuple[list[Part], Scratch]]:
    """Parts of texts, and a scratch folder, for as long as the block lasts."""
    with (
        TemporaryDirectory(dir=_IN_MEMORY) as folder,
        Scratch(Path(folder) / "copies", memory_bytes).opened() as scratch,
    ):
        yield parts_of(Path(folder), texts, per_part, spec), scratch


def without(parts: Sequence[Part], losses: Losses, rule: str, scratch: Scratch) -> list[Part]:
    """The parts without what a step found, by way of the unit that keeps it."""
    unit = Unit(scratch.folder / "found", "found")
    losses.commit(unit)
    return without_copies(parts, unit, "copies", rule)


def dropped_of(parts: Sequence[Part]) -> Dropped:
    """What parts have dropped; each document is in exactly one of kept and dropped."""
    rows = {
        int(row["document"][2:]): (int(row["kept"][2:]), row["value"])
        for part in parts
        for row in part.dropped().to_pylist()
    }
    stay = [int(name[2:]) for part in parts for name in part.index["document"].to_pylist()]
    assert sorted([*rows, *stay]) == list(range(len(rows) + len(stay)))
    assert stay == sorted(stay)
    return rows


def exact_copies_in_memory(texts: Sequence[str]) -> Dropped:
    """Each text that came before."""
    first = {text: number for number, text in reversed(list(enumerate(texts)))}
    return {
        number: (first[text], float(texts.count(text))) for number, text in enumerate(texts) if first[text] != number
    }


def near_copies_in_memory(texts: Sequence[str], spec: FuzzyDedupSpec) -> Dropped:
    """The choice of decision 21 on lists: one text after another, compared with those that stay and share a key."""
    sketch = Sketch.of(spec)
    keys = sketch(pa.array(list(texts), pa.large_string())).to_pylist()
    order = range(len(texts))
    if spec.survivor == "longest":
        order = sorted(order, key=lambda row: -len(texts[row].encode()))
    shingles = [sketch.shingles(text) for text in texts]
    stay, dropped = defaultdict[tuple[int, int], list[int]](list), Dropped()
    for row in order:
        bands = list(enumerate(keys[row] or ()))
        met = dict.fromkeys(other for band in bands for other in stay[band])
        likeness = {other: similarity(shingles[row], shingles[other]) for other in met}
        best = max(likeness, key=likeness.__getitem__, default=row)
        if likeness.get(best, 0.0) >= spec.similarity:
            dropped[row] = best, likeness[best]
        else:
            for band in bands:
                stay[band].append(row)
    return dropped
