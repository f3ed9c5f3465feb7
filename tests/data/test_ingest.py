"""The ingest stage: the same bytes whoever works on it, nothing lost, nothing done twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.split import SPLITS, split_of
from foundation_core.data.tokens.byte_level import END_ID, load_tokenizer, token_bytes
from foundation_core.errors import ConfigError, DataError, SetupError, Stopped
from foundation_core.events import read_events
from foundation_core.specs import FilterSpec, IngestSpec, SourceSpec, SplitSpec, TokenizerSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.store import StageResult
from tests.support.faults import StopAfter
from tests.support.ingestion import ProcessPool, ShuffledPool, finished_units, killed_at_renames

Build = Callable[..., Context]
BuildSpec = Callable[..., IngestSpec]
Digests = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="module")
def reference(
    tmp_path_factory: pytest.TempPathFactory, serial_context: Build, little_spec: BuildSpec
) -> tuple[Path, StageResult]:
    folder = tmp_path_factory.mktemp("reference")
    return folder, ingest(little_spec(), {}, serial_context(folder))


def documents_in(folder: Path, name: str) -> list[dict[str, Any]]:
    return [row for table in ShardDataset(folder / name).tables() for row in table.to_pylist()]


def test_documents_in_are_documents_kept_dropped_or_quarantined(
    reference: tuple[Path, StageResult], corpus: Path
) -> None:
    folder, result = reference
    parts = [
        [row["document"] for row in documents_in(folder, name)] for name in ("documents", "dropped", "quarantined")
    ]
    files = [f"folder/{path.relative_to(corpus).as_posix()}" for path in corpus.glob("**/*.py")]
    assert sorted(document for part in parts for document in part) == sorted(files)
    counts = result.summary["documents"]
    assert counts["in"] == len(files) == counts["kept"] + counts["dropped"] + counts["quarantined"]
    assert [counts[name] for name in ("kept", "dropped", "quarantined")] == [len(part) for part in parts]


def test_what_is_left_out_says_why(reference: tuple[Path, StageResult]) -> None:
    folder, result = reference
    dropped = {row["document"]: row for row in documents_in(folder, "dropped")}
    assert dropped["folder/stub.py"]["rule"] == "characters >= 50"
    assert dropped["folder/stub.py"]["value"] == 5
    assert dropped["folder/json/decoder.py"]["kept"] == "folder/json/a_copy.py"
    assert documents_in(folder, "quarantined") == [
        {"document": "folder/latin.py", "reason": "not UTF-8: byte 0xe9 at offset 3"}
    ]
    assert result.summary["dropped_by_rule"]["characters >= 50"] >= 1


def test_the_tokens_of_every_split_spell_its_documents(reference: tuple[Path, StageResult]) -> None:
    folder, result = reference
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    documents = {row["document"]: row for row in documents_in(folder, "documents")}
    seen = []
    for split in SPLITS:
        for row in documents_in(folder, f"tokens/{split}"):
            document = documents[row["document"]]
            assert tokenizer.decode(row["tokens"][:-1], skip_special_tokens=False) == document["text"]
            assert row["tokens"].count(END_ID) == 1
            assert row["tokens"][-1] == END_ID
            assert (document["split"], document["group"]) == (split, row["group"])
            assert split_of(row["document"], SplitSpec(validation_fraction=0.2, test_fraction=0.2)) == split
            assert int(token_bytes(tokenizer)[row["tokens"]].sum()) == document["bytes"]
            seen.append(row["document"])
    assert sorted(seen) == sorted(documents)
    assert result.summary["tokens"] == sum(part["tokens"] for part in result.summary["splits"].values())


def test_the_tokenizer_has_seen_no_validation_or_test_document(
    reference: tuple[Path, StageResult], tmp_path: Path, corpus: Path, serial_context: Build, little_spec: BuildSpec
) -> None:
    folder, result = reference
    texts = {row["document"]: row["split"] for row in documents_in(folder, "documents")}
    for split, same in (("test", True), ("train", False)):  # the second is the negative control
        changed = tmp_path / f"changed-{split}"
        shutil.copytree(corpus, changed)
        chosen = max((name for name in texts if texts[name] == split), key=lambda name: len(name))
        (changed / chosen.removeprefix("folder/")).write_text("zebra_quagga = zebra_quagga\n" * 3000)
        spec = little_spec(source=SourceSpec(kind="folder", path=str(changed), pattern="**/*.py"))
        again = ingest(spec, {}, serial_context(tmp_path / f"again-{split}"))
        assert (again.outputs["tokenizer.json"] == result.outputs["tokenizer.json"]) is same
        assert again.outputs["tokens/test/manifest.json"] != result.outputs["tokens/test/manifest.json"]


@pytest.mark.parametrize("pool", [ProcessPool(), ShuffledPool()], ids=["two processes", "shuffled"])
def test_the_bytes_do_not_depend_on_who_works_on_it(
    reference: tuple[Path, StageResult],
    tmp_path: Path,
    serial_context: Build,
    little_spec: BuildSpec,
    digests: Digests,
    pool: Any,
) -> None:
    folder, result = reference
    again = ingest(little_spec(), {}, serial_context(tmp_path / "again", pool=pool))
    assert digests(tmp_path / "again") == digests(folder)
    assert again.outputs == result.outputs
    assert again.summary == result.summary


def test_the_bytes_do_not_depend_on_the_size_of_units_or_the_place_of_the_source(
    reference: tuple[Path, StageResult],
    tmp_path: Path,
    corpus: Path,
    serial_context: Build,
    little_spec: BuildSpec,
    digests: Digests,
) -> None:
    shutil.copytree(corpus, tmp_path / "elsewhere")
    source = SourceSpec(kind="folder", path=str(tmp_path / "elsewhere"), pattern="**/*.py")
    ingest(little_spec(source=source, unit_bytes=1024), {}, serial_context(tmp_path / "again"))
    assert digests(tmp_path / "again") == digests(reference[0])
    other = little_spec(split=SplitSpec(validation_fraction=0.2, test_fraction=0.2, seed=1))  # the negative control
    ingest(other, {}, serial_context(tmp_path / "other"))
    assert digests(tmp_path / "other") != digests(reference[0])


def test_stopped_it_keeps_finished_units_and_continues_to_the_same_bytes(
    reference: tuple[Path, StageResult],
    tmp_path: Path,
    serial_context: Build,
    little_spec: BuildSpec,
    digests: Digests,
) -> None:
    folder, finished = tmp_path / "stopped", dict[Path, int]()
    for _ in range(3):
        with pytest.raises(Stopped, match="run the same command again"):
            ingest(little_spec(), {}, serial_context(folder, stop=StopAfter(4)))
        done = finished_units(folder)
        assert len(done) > len(finished)
        assert {path: done[path] for path in finished} == finished  # none was done again
        finished = done
    ingest(little_spec(), {}, serial_context(folder))
    assert digests(folder) == digests(reference[0])


def test_killed_before_a_rename_it_continues_to_the_same_bytes(
    reference: tuple[Path, StageResult],
    tmp_path: Path,
    serial_context: Build,
    little_spec: BuildSpec,
    digests: Digests,
) -> None:
    spec = little_spec()
    reads, encodes = (len(finished_units(reference[0], phase)) for phase in ("read", "encode"))
    # in the first unit; in one amid others; before the commits of the tokenizer, of an encoded unit and of a data set
    points = [1, 5 * (reads // 2) + 4, 5 * reads + 3, 5 * reads + 6, 5 * reads + 4 + 3 * encodes + 4]
    killed_at_renames(spec, tmp_path, points)
    for point in points:
        folder = tmp_path / str(point)
        with pytest.raises(DataError, match="not a finished data set"):
            ShardDataset(folder / "tokens" / "train")
        finished = finished_units(folder)
        assert bool(finished) is (point > 4)
        ingest(spec, {}, serial_context(folder))
        assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
        assert digests(folder) == digests(reference[0])


def test_a_full_disk_is_said_and_with_room_again_it_continues_to_the_same_bytes(
    reference: tuple[Path, StageResult],
    little_disk: Callable[[str], Path],
    serial_context: Build,
    little_spec: BuildSpec,
    digests: Digests,
) -> None:
    disk = little_disk("16m")
    (disk / "ballast").write_bytes(bytes(15_700_000))
    folder = disk / "ingest"
    with pytest.raises(SetupError, match="no room left on the disk"):
        ingest(little_spec(), {}, serial_context(folder))
    assert not (folder / "tokens").exists()
    finished = finished_units(folder)
    (disk / "ballast").unlink()
    ingest(little_spec(), {}, serial_context(folder))
    assert len(finished) > 1
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    assert digests(folder) == digests(reference[0])


def test_a_unit_that_was_damaged_or_is_of_another_spec_is_done_again(
    reference: tuple[Path, StageResult],
    tmp_path: Path,
    serial_context: Build,
    little_spec: BuildSpec,
    digests: Digests,
) -> None:
    folder, result = shutil.copytree(reference[0], tmp_path / "copy"), reference[1]
    before = digests(folder)
    damaged = sorted(folder.glob("units/read/*/*/kept.arrow"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-8])
    ingest(little_spec(), {}, serial_context(folder))
    assert digests(folder) == before
    other = ingest(little_spec(tokenizer=TokenizerSpec(vocabulary=401)), {}, serial_context(folder))
    assert other.outputs["tokenizer.json"] != result.outputs["tokenizer.json"]


def test_one_unreadable_file_is_no_reason_to_stop_but_many_are(
    tmp_path: Path, corpus: Path, serial_context: Build, little_spec: BuildSpec
) -> None:
    with pytest.raises(DataError, match=r"1 of (at most )?\d+ documents cannot be read: folder/latin\.py: not UTF-8"):
        ingest(little_spec(quarantine_fraction=0.01), {}, serial_context(tmp_path))
    ingest(little_spec(quarantine_fraction=0.05), {}, serial_context(tmp_path))


def test_a_corpus_that_is_filtered_out_names_the_rules_that_did_it(
    tmp_path: Path, serial_context: Build, little_spec: BuildSpec
) -> None:
    rules = (FilterSpec(measure="characters", at_least=1000), FilterSpec(measure="alphanumeric_fraction", at_least=1))
    with pytest.raises(DataError, match=r"'alphanumeric_fraction >= 1' dropped \d\d, 'characters >= 1000' dropped \d"):
        ingest(little_spec(filters=rules), {}, serial_context(tmp_path))
    assert not (tmp_path / "tokens").exists()


def test_copies_stay_where_nobody_asked_to_drop_them(
    tmp_path: Path, serial_context: Build, little_spec: BuildSpec
) -> None:
    result = ingest(little_spec(exact_dedup=False), {}, serial_context(tmp_path))
    documents = {row["document"]: row["sha256"] for row in documents_in(tmp_path, "documents")}
    assert documents["folder/json/decoder.py"] == documents["folder/json/a_copy.py"]
    assert list(result.summary["dropped_by_rule"]) == ["characters >= 50"]


def test_a_vocabulary_that_the_corpus_cannot_fill_is_refused(
    tmp_path: Path, serial_context: Build, little_spec: BuildSpec
) -> None:
    with pytest.raises(ConfigError, match="vocabulary=65536 cannot be filled"):
        ingest(little_spec(tokenizer=TokenizerSpec(vocabulary=65536)), {}, serial_context(tmp_path))


def test_a_split_without_documents_is_refused_with_the_counts(
    tmp_path: Path, serial_context: Build, little_spec: BuildSpec
) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "only.py").write_text("only = 'one document'\n" * 9)
    source = SourceSpec(kind="folder", path=str(tmp_path / "few"), pattern="**/*.py")
    with pytest.raises(DataError, match=r"a split has no document: \d train, \d validation, \d test"):
        ingest(little_spec(source=source), {}, serial_context(tmp_path / "out"))


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_missing_or_empty_source_is_refused(
    tmp_path: Path, serial_context: Build, little_spec: BuildSpec, kind: str
) -> None:
    if kind == "empty":
        (tmp_path / "source").mkdir()
    spec = little_spec(source=SourceSpec(kind="folder", path=str(tmp_path / "source")))
    with pytest.raises(DataError, match="is not there" if kind == "missing" else "is empty"):
        ingest(spec, {}, serial_context(tmp_path / "out"))


def test_a_measure_that_loses_a_document_is_found_out(
    tmp_path: Path, serial_context: Build, little_spec: BuildSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(texts: pa.Array) -> pa.Array:
        return pa.array([None] + [1.0] * (len(texts) - 1), pa.float64())

    monkeypatch.setattr("foundation_core.data.rules.filters.find", lambda group, name: forgetful)
    with pytest.raises(DataError, match=r"documents went in; \d+ kept \+ \d+ dropped \+ \d+ quarantined came out"):
        ingest(little_spec(), {}, serial_context(tmp_path))


def test_progress_metrics_and_the_data_set_are_reported(reference: tuple[Path, StageResult]) -> None:
    folder, result = reference
    events = [event for _, event in read_events(folder)]
    assert [event["name"] for event in events if event["kind"] == "phase"] == [
        "read",
        "exact copies",
        "tokenizer",
        "encode",
        "write",
        "card",
    ]
    progress = [event for event in events if event["kind"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] > 3
    said = [event["values"] for event in events if event["kind"] == "metrics"]
    (metrics,) = (values for values in said if "ingest/tokens" in values)
    assert any("ingest/seconds_encoding" in values for values in said), "where the time went is told too"
    assert metrics["ingest/tokens"] == result.summary["tokens"]
    assert metrics["ingest/bytes_per_token"] == pytest.approx(result.summary["text_bytes"] / result.summary["tokens"])
    (dataset,) = (event for event in events if event["kind"] == "dataset")
    assert dataset["facts"]["digest"] == result.outputs["tokens/train/manifest.json"]
    json.dumps(result.summary, allow_nan=False)
