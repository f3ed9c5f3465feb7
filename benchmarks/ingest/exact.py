"""Near copies against an exact comparison of all pairs, and encoding against the library that does it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import fastokens
import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.copies.losses import without_copies
from foundation_core.data.copies.minhash import Sketch, similarity
from foundation_core.data.copies.near import near_copies, near_rule
from foundation_core.data.copies.spill import Scratch
from foundation_core.data.shards.dataset import arrow_bytes
from foundation_core.data.tokens.byte_level import encode_document, load_tokenizer
from foundation_core.data.tokens.encoding import encode_texts
from foundation_core.data.units.corpus import Part
from foundation_core.data.units.work import KEPT_FILE, SKETCHES_FILE, Unit
from foundation_core.specs import FuzzyDedupSpec

BAR_RECALL, BAR_PRECISION, BAR_ENCODING = 0.95, 0.99, 0.7
_COMMON = 400
"""A shingle of more texts than this is not followed: texts that share no rarer one are not alike."""
_CHECKED = 300
_MEMORY_BYTES = 128_000_000


def report(texts: list[str]) -> list[bool]:
    """Print recall and precision of fuzzy deduplication; whether each bar is met.

    A pair counts as found where at least one of it is dropped, and a dropped text as right where it is alike to one
    that stays.
    """
    spec = FuzzyDedupSpec(use=True)
    sketch = Sketch.of(spec)
    column, start = pa.array(texts, pa.large_string()), time.perf_counter()
    rows = {"document": [f"{at:09d}" for at in range(len(texts))], "group": pa.repeat("", len(texts)),
            "bytes": pc.binary_length(column), "sha256": pa.repeat("", len(texts)), "text": column}  # fmt: skip
    with TemporaryDirectory() as name, Scratch(Path(name) / "copies", _MEMORY_BYTES).opened() as scratch:
        unit = Unit(Path(name) / "read", "read")
        sketches = pa.table({"keys": sketch(column)})
        unit.commit({KEPT_FILE: arrow_bytes(pa.table(rows)), SKETCHES_FILE: arrow_bytes(sketches)})
        parts, found = [Part.of(unit, Path(name) / "part")], Unit(Path(name) / "found", "near copies")
        near_copies(parts, spec, scratch).commit(found)
        (part,) = without_copies(parts, found, "near", near_rule(spec))
        gone = {int(row["document"]): int(row["kept"]) for row in part.dropped().to_pylist()}
    seconds = time.perf_counter() - start
    shingles = [sketch.shingles(text) for text in texts]
    holders = defaultdict[int, list[int]](list)
    for row, found in enumerate(shingles):
        for shingle in found.tolist():
            holders[shingle].append(row)
    candidates = {pair for rows in holders.values() if len(rows) <= _COMMON for pair in combinations(rows, 2)}
    pairs = {(a, b) for a, b in candidates if similarity(shingles[a], shingles[b]) >= spec.similarity}
    recall = sum(a in gone or b in gone for a, b in pairs) / max(len(pairs), 1)
    right = sum(
        similarity(shingles[row], shingles[kept]) >= spec.similarity and kept not in gone for row, kept in gone.items()
    )
    precision = right / max(len(gone), 1)
    print(f"near copies: {len(texts):,} texts, {len(pairs):,} pairs of at least {spec.similarity:g}")
    print(f"  {len(gone):,} dropped in {seconds:.1f} s")
    print(f"  recall {recall:.4f} (bar {BAR_RECALL}), precision {precision:.4f} (bar {BAR_PRECISION})")
    return [recall >= BAR_RECALL, precision >= BAR_PRECISION]


def most_alike(texts: Mapping[str, str], asked: Collection[str], among: Collection[str]) -> dict[str, float]:
    """How alike some texts are, exactly, to that one among others which is most like them."""
    sketch = Sketch.of(FuzzyDedupSpec(use=True))
    shingles = {name: sketch.shingles(text) for name, text in texts.items()}
    holders = defaultdict[int, list[str]](list)
    for name in asked:
        for shingle in shingles[name].tolist():
            holders[shingle].append(name)
    shared = Counter[tuple[str, str]]()
    for other in among:
        for shingle in shingles[other].tolist():
            shared.update((name, other) for name in holders.get(shingle, ()) if name != other)
    found = dict.fromkeys(asked, 0.0)
    for (name, other), both in shared.items():
        found[name] = max(found[name], both / (len(shingles[name]) + len(shingles[other]) - both))
    return found


def encoding(texts: list[str], tokenizer: Path) -> list[bool]:
    """Print the speed of encoding beside the library's own; whether the bar is met and the ids are the same."""
    column, library = pa.chunked_array([texts], pa.large_string()), fastokens.Tokenizer.from_file(str(tokenizer))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    best = {"library": float("inf"), "ours": float("inf")}
    for _ in range(3):
        for name, call in (
            ("library", lambda: library.encode_batch_flat(texts, split_special_tokens=True)),
            ("ours", lambda: encode_texts(tokenizer, column)),
        ):
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    share = best["library"] / best["ours"]
    reference = load_tokenizer(tokenizer)
    few = texts[:_CHECKED]
    same = encode_texts(tokenizer, pa.chunked_array([few], pa.large_string())).to_pylist() == [
        encode_document(reference, text) for text in few
    ]
    speed = f"{megabytes / best['ours']:.0f} MB/s, {share:.2f} of the library's own (bar {BAR_ENCODING})"
    print(f"encoding: {speed}; ids of tokenizers: {same}")
    return [share >= BAR_ENCODING, same]
