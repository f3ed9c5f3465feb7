"""What an ingestion says of itself: the account and content in its manifests, where the time went, when it stops."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation_core.data.shards.dataset import MANIFEST, ShardDataset
from foundation_core.data.sources.documents import Entry, SourceFile, open_source
from foundation_core.data.sources.text_files import TextFile
from foundation_core.errors import DataError
from foundation_core.events import read_events
from foundation_core.files import read_json, write_json
from foundation_core.identity import content_hash
from foundation_core.specs import FuzzyDedupSpec, IngestSpec, SourceSpec, SplitSpec, TokenizerSpec
from foundation_core.specs.reading import ReadingSpec
from foundation_core.stages.ingest import ingest
from foundation_core.stages.ingest_units import Budget
from tests.support.ingestion import ShuffledPool, finished_units

Build = Callable[..., Any]


def said(folder: Path) -> list[str]:
    return [event["text"] for _, event in read_events(folder) if event["kind"] == "say"]


def test_every_manifest_has_the_account_and_the_content_that_is_printed(
    tmp_path: Path, serial_context: Build, little_spec: Build
) -> None:
    for name, pool in (("one", {}), ("two", {"pool": ShuffledPool()})):
        result = ingest(little_spec(), {}, serial_context(tmp_path / name, **pool))
        content = content_hash(result.outputs)
        assert f"content {content}: the same for any number of workers" in said(tmp_path / name)
        manifests = [read_json(path) for path in tmp_path.glob(f"{name}/**/{MANIFEST}")]
        assert len(manifests) == 6
        for manifest in manifests:
            account = manifest["documents"]
            assert account == result.summary["documents"]
            assert account["in"] == account["kept"] + account["dropped"] + account["quarantined"] > 0
            assert manifest["corpus"] == content
        by_name = {name: ShardDataset(tmp_path / "one" / name).rows for name in ("documents", "dropped", "quarantined")}
        assert [account["kept"], account["dropped"], account["quarantined"]] == list(by_name.values())


def test_a_manifest_of_the_first_version_is_read_and_one_of_a_newer_version_is_not(
    tmp_path: Path, serial_context: Build, little_spec: Build
) -> None:
    ingest(little_spec(), {}, serial_context(tmp_path))
    folder = tmp_path / "tokens" / "train"
    whole = ShardDataset(folder)
    old = {name: value for name, value in whole.manifest.items() if name not in ("documents", "corpus")}
    write_json(folder / MANIFEST, {**old, "version": 1})
    assert (ShardDataset(folder).content, ShardDataset(folder).rows) == (whole.content, whole.rows)
    write_json(folder / MANIFEST, {**old, "version": 3})
    with pytest.raises(DataError, match="has version 3"):
        ShardDataset(folder)


def test_where_the_time_went_is_told_step_by_step(tmp_path: Path, serial_context: Build, little_spec: Build) -> None:
    ingest(little_spec(fuzzy_dedup=FuzzyDedupSpec(use=True)), {}, serial_context(tmp_path))
    (line,) = [text for text in said(tmp_path) if text.startswith("where ")]
    names = re.findall(r"([a-z]+) \d+%", line)
    assert names == [
        "listing", "reading", "language", "cleaning", "rules", "signatures", "deduplication", "tokenizer", "encoding",
        "writing",
    ]  # fmt: skip
    (metrics,) = [
        event["values"] for _, event in read_events(tmp_path)
        if event["kind"] == "metrics" and "ingest/seconds_reading" in event["values"]
    ]  # fmt: skip
    assert {name.removeprefix("ingest/seconds_") for name in metrics} == set(names)
    assert metrics["ingest/seconds_signatures"] > 0
    ingest(little_spec(), {}, serial_context(tmp_path / "without"))
    assert "signatures" not in said(tmp_path / "without")[-1]


@pytest.fixture
def mostly_bad(tmp_path: Path) -> SourceSpec:
    """Forty files, of which the first ten are no text."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(40):
        bad = number < 10
        (folder / f"{number:02d}.py").write_bytes(b"\xff\xfe\xfa" if bad else f"text = {number}\n".encode() * 50)
    return SourceSpec(kind="folder", path=str(folder))


def spec_of(source: SourceSpec, fraction: float) -> IngestSpec:
    return IngestSpec(
        source=source, tokenizer=TokenizerSpec(vocabulary=280), unit_bytes=1024, quarantine_fraction=fraction,
        split=SplitSpec(validation_fraction=0.2, test_fraction=0.2),
    )  # fmt: skip


@pytest.mark.parametrize("pool", [{}, {"pool": ShuffledPool()}], ids=["in order", "shuffled"])
def test_too_many_unreadable_documents_stop_it_before_all_is_read(
    mostly_bad: SourceSpec, tmp_path: Path, serial_context: Build, pool: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=r"of at most 40 documents cannot be read: folder/0\d.py: not UTF-8") as stopped:
        ingest(spec_of(mostly_bad, 0.05), {}, serial_context(tmp_path / "bad", **pool))
    assert stopped.value.allowed == "at most 5.0% (ingest.quarantine_fraction)"
    read = len(finished_units(tmp_path / "bad", "read"))
    with pytest.raises(DataError, match="cannot be read"):  # what is there already counts too
        ingest(spec_of(mostly_bad, 0.05), {}, serial_context(tmp_path / "bad", **pool))
    assert len(finished_units(tmp_path / "bad", "read")) == read
    done = ingest(spec_of(mostly_bad, 0.25), {}, serial_context(tmp_path / "enough", **pool))
    assert done.summary["documents"]["quarantined"] == 10
    assert read < len(finished_units(tmp_path / "enough", "read"))


def test_a_budget_is_never_used_up_where_the_end_might_still_be_within_it() -> None:
    exact = Budget(0.25, [], [10, 30])
    exact.spend(10)
    with pytest.raises(DataError, match="11 of at most 40"):
        exact.spend(1)
    unknown = Budget(0.25, [], [10, None])
    unknown.spend(1000)


def test_no_part_of_a_source_holds_more_documents_than_it_says(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with tarfile.open(tmp_path / "b.tar", "w") as tar, zipfile.ZipFile(tmp_path / "c.zip", "w") as packed:
        for number in range(30):
            info = tarfile.TarInfo(f"{'long' * 40}/{number}.txt")
            info.size = number
            tar.addfile(info, io.BytesIO(b"x" * number))
            packed.writestr(f"{number}.txt", "x" * number)
    (tmp_path / "d.jsonl").write_text('{"text": "x"}\n\n' * 20 + "{")
    folder = open_source(SourceSpec(kind="folder", path=str(tmp_path), pattern="*.[tz]*")).files()
    table = open_source(SourceSpec(kind="table", path=str(tmp_path / "d.jsonl"))).files()
    for unit_bytes in (64, 10**6):
        for part in (part for file in [*folder, *table] for part in file.parts(unit_bytes)):
            most, there = part.most_documents(), len(list(part.entries()))
            assert most is not None
            assert there <= most


def test_a_source_of_others_that_says_nothing_of_its_number_is_not_guessed() -> None:
    class Many(SourceFile):
        def entries(self) -> Any:
            return iter([self, self])

    file = SourceFile("a", Path("a"), 1, "")
    assert Many("a", Path("a"), 1, "").most_documents() is None
    assert file.most_documents() == 1
    assert Entry("a", Path("a"), 1, "", data=b"").most_documents() == 1
    assert TextFile("a", Path("a"), 1, "", reading=ReadingSpec()).most_documents() == 1


def test_the_parts_whose_encodings_are_repaired_are_named(tmp_path: Path, serial_context: Build) -> None:
    parts: dict[str, Any] = {}
    for name, repair in (("new", False), ("old", True)):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(20):
            text = f"El camión número {number + 100 * repair} llegó mañana por la tarde y volvió después. " * 8
            (folder / f"{number}.txt").write_bytes(text.encode("latin-1" if repair else "utf-8"))
        parts[name] = {
            "kind": "folder", "path": str(folder), "pattern": "*.txt", "reading": {"repair_encoding": repair},
        }  # fmt: skip
    source = SourceSpec.model_validate({"kind": "several", "parts": parts})
    result = ingest(spec_of(source, 0.05), {}, serial_context(tmp_path / "out"))
    assert sum(result.summary["encodings"].values()) == 40 > result.summary["encodings"]["utf-8"]
    told = "Texts of old in older encodings were repaired where these are sure."
    assert told in result.summary["reading"]
    assert told in (tmp_path / "out" / "card" / "data_card.md").read_text()


@pytest.mark.parametrize("stated", [None, "CC-BY-4.0"])
def test_licences_of_series_are_kept(tmp_path: Path, serial_context: Build, stated: str | None) -> None:
    rows = [{"x": number, "terms": f"terms {number // 40}"} for number in range(160)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for field in (None, "terms"):
        spec = IngestSpec.model_validate(
            {
                "source": {
                    "kind": "series_table", "path": str(tmp_path / "t.jsonl"), "licence": stated,
                    "licence_field": field,
                },
                "series": {"columns": ["x"], "window": 8, "stride": 4},
            }
        )  # fmt: skip
        folder = tmp_path / f"{field}"
        ingest(spec, {}, serial_context(folder))
        found = {row["licence"] for some in ShardDataset(folder / "documents").tables() for row in some.to_pylist()}
        assert found == {stated or "not stated by the source"} if field is None else "terms 0; terms 1" in found


@pytest.mark.parametrize("kind", ["image_folder", "image_table"])
def test_licences_of_images_are_kept(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "t.csv").write_text("image,terms\na.png,MIT\na.png,\n")
    path = str(tmp_path if kind == "image_folder" else tmp_path / "t.csv")
    source = open_source(SourceSpec(kind=kind, path=path, licence="CC0", licence_field="terms"))
    assert source.licence == "CC0"
    if kind == "image_table":
        files = source.files()
        assert [file.licence for file in files] == ["MIT", ""]
        assert files[0].digest() != files[1].digest()
