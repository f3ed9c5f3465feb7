"""Of a text that a rule drops its beginning is kept beside the rule; of a withdrawn one, or a copy, nothing is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foundation_core.data.rules import filters
from foundation_core.data.shards.dataset import ShardDataset, arrow_bytes
from foundation_core.data.units.corpus import Corpus, Part
from foundation_core.data.units.work import DROPPED_FILE, Unit
from foundation_core.specs import FilterSpec, IngestSpec, ParagraphDedupSpec
from foundation_core.stages.ingest import ingest
from tests.support.data_folder import DataFolder, little_ingestion, little_text
from tests.support.ingestion import ProcessPool

Build = Callable[..., Any]
SHORT = (FilterSpec(measure="characters", at_least=60),)
ROWS = 60


def short(number: int) -> str:
    return f"secret{number} 漢字 🙂 " * 4


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of which every fifth text is short, and one is another's copy."""
    texts = [short(number) if number % 5 == 0 else little_text(f"row {number}") for number in range(ROWS)]
    texts[7] = texts[6]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"text": text, "name": str(7 * at % ROWS)}) + "\n" for at, text in enumerate(texts))
    )
    return path


def spec_of(table: Path, source: dict[str, Any] | None = None, **fields: Any) -> IngestSpec:
    told = {"kind": "table", "path": str(table), **(source or {})}
    return little_ingestion(told, filters=SHORT, **fields)


def dropped(folder: Path) -> dict[str, dict[str, Any]]:
    tables = ShardDataset(folder / "dropped").tables()
    return {row["document"]: row for table in tables for row in table.to_pylist()}


@pytest.mark.parametrize("characters", [0, 1, 9, 2000])
def test_a_dropped_text_is_kept_as_far_as_is_asked_for_and_a_copy_s_is_not(
    table: Path, tmp_path: Path, characters: int, serial_context: Build
) -> None:
    ingest(spec_of(table, dropped_text_characters=characters), {}, serial_context(tmp_path / "made"))
    rows = dropped(tmp_path / "made")
    for number in range(0, ROWS, 5):
        kept = rows[f"table/rows.jsonl/{number + 1:09d}"]["text"]
        assert kept == (short(number)[:characters] if characters else None)
    (copy,) = [row for row in rows.values() if row["kept"]]
    assert copy["text"] is None
    assert len(rows) == ROWS // 5 + 1


@pytest.mark.parametrize("source", [{}, {"id_field": "name"}], ids=["rows in order", "ids of their own"])
def test_what_is_kept_is_the_same_for_any_workers(
    table: Path, tmp_path: Path, source: dict[str, Any], serial_context: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(table, source, unit_bytes=2048)
    ingest(spec.model_copy(update={"workers": 1}), {}, serial_context(tmp_path / "alone"))
    monkeypatch.setattr("foundation_core.data.units.corpus._MERGED_ROWS", 3)
    pool = serial_context(tmp_path / "three", pool=ProcessPool())
    ingest(spec.model_copy(update={"workers": 3, "unit_bytes": 4096}), {}, pool)
    files = [sorted((tmp_path / name / "dropped").glob("shard-*")) for name in ("alone", "three")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    assert list(dropped(tmp_path / "alone")) == sorted(dropped(tmp_path / "alone"))
    assert sum(row["text"] is not None for row in dropped(tmp_path / "alone").values()) == ROWS // 5


def test_texts_of_parts_that_lie_between_each_other_are_merged_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foundation_core.data.units.corpus._MERGED_ROWS", 4)
    parts = []
    for number in range(5):  # the last one lies behind the others, and one has nothing
        unit = Unit(tmp_path / f"unit-{number}", "identity")
        names = [f"d{7 * at + number + 900 * (number == 4):04d}" for at in range(0 if number == 2 else 6)]
        usual = {"group": "", "rule": "r", "value": 1.0, "kept": ""}
        rows = [{"document": name, **usual, "text": f"text of {name}"} for name in names]
        unit.commit({DROPPED_FILE: arrow_bytes(pa.Table.from_pylist(rows, filters.DROPPED))})
        parts.append(Part.of(unit, tmp_path / str(number)))
    tables = list(Corpus(parts).dropped())
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["document"] for row in rows] == sorted(row["document"] for row in rows)
    assert len(rows) == 24
    assert all(row["text"] == f"text of {row['document']}" for row in rows)
    assert [len(table) for table in tables] == [4, 4, 4, 4, 2, 6]


def test_a_withdrawn_text_is_in_no_file_of_the_result(table: Path, tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "home")
    folder.ingest(spec_of(table))
    document = "table/rows.jsonl/000000011"
    assert _holding(folder.last, "secret10 "), "the negative control"
    folder.ingest(spec_of(table, {"withdrawn": [document]}))
    assert _holding(folder.last, "secret15 ")
    assert not _holding(folder.last, "secret10 ")
    assert document not in dropped(folder.last)


def _holding(folder: Path, words: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and words.encode() in path.read_bytes()]


def test_a_text_that_loses_too_many_paragraphs_is_kept_too(tmp_path: Path, serial_context: Build) -> None:
    notice = "This notice stands in every one of these texts, word for word, and is long enough to be looked for."
    texts = [little_text(str(number)) for number in range(20)] + [notice + "\n\nAnd more.", notice]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    repeats = ParagraphDedupSpec(use=True, least_characters=20, most_lost_fraction=0.5)
    spec = little_ingestion({"kind": "table", "path": str(path)}, paragraph_dedup=repeats, dropped_text_characters=20)
    ingest(spec, {}, serial_context(tmp_path / "made"))
    (row,) = dropped(tmp_path / "made").values()
    assert (row["rule"], row["text"]) == ("repeated_paragraphs <= 0.5", notice[:20])
