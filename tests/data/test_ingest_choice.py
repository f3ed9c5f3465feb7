"""What an ingestion decides between reading and writing, for any memory; and what it takes of a machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.tokens.training import training_texts
from foundation_core.data.units.corpus import Corpus
from foundation_core.specs import FuzzyDedupSpec, IngestSpec, TokenizerSpec
from foundation_core.stages.ingest import ingest
from foundation_core.stages.ingest_needs import memory_bytes
from tests.support.deduplication import parts_of

Build = Callable[..., Any]
TEXTS = [f"{number} " + "words " * (number % 7 + 1) for number in range(400)]


def test_the_result_is_the_same_to_the_byte_for_any_memory(
    tmp_path: Path, serial_context: Build, little_spec: Build, digests: Build
) -> None:
    found = {}
    for memory in (1024, 128_000_000):
        spec = little_spec(fuzzy_dedup=FuzzyDedupSpec(use=True), work_memory_bytes=memory)
        result = ingest(spec, {}, serial_context(tmp_path / str(memory)))
        found[memory] = digests(tmp_path / str(memory)), result.summary
        assert not (tmp_path / str(memory) / "choice").exists()
    assert found[1024] == found[128_000_000]
    assert any(rule.startswith("copies") for rule in result.summary["dropped_by_rule"])


def corpus_of(folder: Path, splits: list[str]) -> Corpus:
    parts, given = [], iter(splits)
    for part in parts_of(folder, TEXTS, 100):
        parts.append(part.with_splits([next(given) for _ in range(len(part))]))
    return Corpus(parts)


def test_a_tokenizer_learns_from_all_training_texts_or_from_a_sample_of_about_as_many_bytes(tmp_path: Path) -> None:
    splits = ["train" if number % 4 else "test" for number in range(len(TEXTS))]
    corpus = corpus_of(tmp_path, splits)
    training = [text for text, split in zip(TEXTS, splits, strict=True) if split == "train"]
    total = sum(map(len, training))
    assert list(training_texts(corpus, total, 0)) == training
    for share in (0.2, 0.5):
        some = list(training_texts(corpus, round(share * total), 0))
        assert set(some) < set(training)
        assert sum(map(len, some)) == pytest.approx(share * total, rel=0.3)
    less = set(training_texts(corpus, round(0.2 * total), 0))
    assert less < set(some)  # a larger sample holds the smaller one
    assert list(training_texts(corpus, total - len(training), 1)) == training  # a byte of each is a value, no text


def test_a_sample_makes_another_tokenizer_and_nothing_else(
    tmp_path: Path, serial_context: Build, little_spec: Build
) -> None:
    results = []
    for most in (20_000, 250_000_000):
        spec = little_spec(tokenizer=TokenizerSpec(vocabulary=400, training_bytes=most))
        results.append(ingest(spec, {}, serial_context(tmp_path / str(most))))
    assert results[0].outputs["tokenizer.json"] != results[1].outputs["tokenizer.json"]
    contents = [ShardDataset(tmp_path / str(most) / "documents").content for most in (20_000, 250_000_000)]
    assert contents[0] == contents[1]


def test_what_parts_drop_comes_sorted_even_where_they_interleave(tmp_path: Path) -> None:
    parts = parts_of(tmp_path, TEXTS[:12], 4)
    gone = [part.without("test", pa.array([True] * 4), dropped(part)) for part in parts]
    names = [f"d/{number:04d}" for number in range(12)]

    def found(parts: list[Any]) -> list[list[str]]:
        return [table["document"].to_pylist() for table in Corpus(parts).dropped()]

    assert found(gone) == [names[:4], names[4:8], names[8:]]
    assert found(gone[::-1]) == found(gone)
    halves = [
        part.without("test", pa.array([number % 2 == side for number in range(len(part))]), dropped(part, side))
        for side in (0, 1)
        for part in parts_of(tmp_path / str(side), TEXTS[:12], 12)
    ]
    assert found(halves) == [names]


def dropped(part: Any, side: int | None = None) -> pa.Table:
    rows = part.index.select(["document", "group"])
    if side is not None:
        rows = rows.take(list(range(side, len(rows), 2)))
    for name, value in (("rule", "r"), ("value", 0.0), ("kept", ""), ("text", "how it begins")):
        rows = rows.append_column(name, pa.repeat(value, len(rows)))
    return rows


def test_the_memory_it_takes_goes_with_the_spec() -> None:
    usual = memory_bytes(IngestSpec())
    assert memory_bytes(IngestSpec(workers=4)) > usual + 800_000_000
    assert memory_bytes(IngestSpec(unit_bytes=101_000_000)) == usual + 2 * 1_000_000_000
    assert memory_bytes(IngestSpec(work_memory_bytes=228_000_000)) == usual + 100_000_000
