"""Several sources are one corpus, in which each document keeps the name and the licence of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources.digests import source_content
from foundation_core.data.sources.documents import open_source
from foundation_core.data.sources.modalities import ingest_key
from foundation_core.errors import ConfigError
from foundation_core.specs import IngestSpec, SourceSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Any]:
    """A folder of texts, and a table of texts of which some have labels."""
    (tmp_path / "books").mkdir()
    for number in range(30):
        (tmp_path / "books" / f"{number}.txt").write_text(f"chapter {number} of a book, " * 8)
    rows = [{"text": f"row {number} of a table, " * 8, "kind": "news" if number % 2 else None} for number in range(40)]
    (tmp_path / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "web": {"kind": "table", "path": str(tmp_path / "web.jsonl"), "label_field": "kind", "licence": "CC0"},
        "books": {"kind": "folder", "path": str(tmp_path / "books"), "pattern": "*.txt"},
    }


def _spec(parts: dict[str, Any]) -> IngestSpec:
    return IngestSpec.model_validate(
        {"source": {"kind": "several", "parts": parts}, "tokenizer": {"vocabulary": 270}, "unit_bytes": 1024}
    )


def test_a_document_keeps_its_source_and_licence_and_the_source_is_its_group_where_it_has_no_label(
    parts: dict[str, Any], tmp_path: Path, serial_context: Callable[[Path], Context]
) -> None:
    result = ingest(_spec(parts), {}, serial_context(tmp_path / "out"))
    rows = [row for table in ShardDataset(tmp_path / "out" / "documents").tables() for row in table.to_pylist()]
    seen = {(row["source"], row["group"], row["licence"]) for row in rows}
    assert seen == {("books", "books", "not stated by the source"), ("web", "web", "CC0"), ("web", "news", "CC0")}
    assert all(row["document"].startswith(f"{row['source']}/") for row in rows)
    assert result.summary["documents"]["in"] == 70


def test_the_order_of_the_names_does_not_matter_and_the_content_does(parts: dict[str, Any], tmp_path: Path) -> None:
    def key(parts: dict[str, Any]) -> str:
        spec = _spec(parts)
        return ingest_key(spec, source_content(open_source(spec.source).files())).digest

    backwards = dict(reversed(parts.items()))
    assert key(parts) == key(backwards)
    moved = (tmp_path / "books").rename(tmp_path / "moved")
    parts["books"]["path"] = str(moved)
    assert key(parts) == key(backwards | {"books": parts["books"]})
    before = key(parts)
    (moved / "0.txt").write_text("changed")
    assert key(parts) != before


def test_files_come_in_the_order_of_their_ids_whatever_the_names(parts: dict[str, Any]) -> None:
    named = {"web": parts["books"], "web-2": parts["books"], "web.old": parts["books"]}
    ids = [file.document for file in open_source(_spec(named).source).files()]
    assert ids == sorted(ids)
    assert list(dict.fromkeys(name.split("/")[0] for name in ids)) == ["web-2", "web.old", "web"] != sorted(named)


def test_sources_that_cannot_be_one_are_refused(parts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs source\.parts"):
        open_source(SourceSpec(kind="several"))
    parts["digits"] = {"kind": "digits"}
    with pytest.raises(ConfigError, match="digits has images"):
        open_source(_spec(parts).source)
    with pytest.raises(ValidationError, match="must be of letters"):
        SourceSpec.model_validate({"kind": "several", "parts": {"a/b": {}}})
