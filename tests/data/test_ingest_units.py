"""Ingestions of one data folder find each other's units: what is new is done, and what comes out is the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.errors import Stopped
from foundation_core.events import read_events
from foundation_core.specs import IngestSpec, TokenizerSpec
from foundation_core.stages.ingest import ingest
from tests.support.data_folder import (
    DataFolder,
    folder_source,
    little_ingestion,
    little_text,
    little_texts,
    units,
    write_texts,
)
from tests.support.ingestion import finished_units, killed_at_renames
from tests.support.raw_items import CASES, picture, tone

Digests = Callable[[Path], dict[str, str]]

INGESTS = """
import sys
from pathlib import Path
from foundation_core.specs import IngestSpec
from tests.support.data_folder import DataFolder

folder = DataFolder(Path(sys.argv[2]))
folder.count = int(sys.argv[3])
folder.ingest(IngestSpec.model_validate_json(sys.argv[1]))
"""

CHANGES = st.dictionaries(
    st.integers(0, 59),
    st.sampled_from(["a copy joins", "another joins", "it changes", "it goes"]),
    min_size=1,
    max_size=4,
)


OTHER = {"vocabulary": 265}


class Base(NamedTuple):
    """Texts, and a data folder with an ingestion of them."""

    raw: Path
    folder: DataFolder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    root = tmp_path_factory.mktemp("base")
    base = Base(write_texts(root / "raw", little_texts()), DataFolder(root / "home"))
    base.folder.ingest(little_ingestion(base.raw))
    return base


@pytest.fixture(scope="module")
def other(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of another spec, in a data folder of its own."""
    folder = DataFolder(tmp_path_factory.mktemp("other"))
    folder.ingest(little_ingestion(base.raw, tokenizer=OTHER))
    return folder.last


def shards(folder: Path, name: str) -> list[str]:
    return [shard["sha256"] for shard in ShardDataset(folder / name).manifest["shards"]]


@settings(max_examples=6)
@given(CHANGES)
def test_after_any_change_of_the_files_the_result_is_that_of_a_new_data_folder_and_little_is_done(
    base: Base, digests: Digests, changes: dict[int, str]
) -> None:
    after = little_texts()
    for number, change in changes.items():
        name = f"{number:03d}.txt"
        if change == "it goes":
            del after[name]
        elif change == "it changes":
            after[name] = little_text(f"changed {number}")
        else:
            after[f"{number:03d} new.txt"] = after[name] if change == "a copy joins" else little_text(f"new {number}")
    with TemporaryDirectory() as root:
        old, new = DataFolder(Path(root, "old")), DataFolder(Path(root, "new"))
        shutil.copytree(base.folder.root / "units", old.root / "units")
        spec = little_ingestion(write_texts(Path(root, "raw"), after))
        result, fresh = old.ingest(spec), new.ingest(spec)
        assert result.outputs == fresh.outputs
        assert digests(old.last) == digests(new.last)
        (reused, done), (none, every) = units(result)["read"], units(fresh)["read"]
        assert none == 0
        assert reused + done == every > 6
        assert done <= 2 * len(changes)


def test_what_was_there_already_is_said_as_it_is(base: Base, tmp_path: Path) -> None:
    folder, raw = base.folder, write_texts(tmp_path / "raw", {**little_texts(), "025b.txt": little_text("new")})
    reused, done = units(folder.ingest(little_ingestion(raw)))["read"]
    events = [event for _, event in read_events(folder.last)]
    assert f"read: {reused} of {reused + done} units were there already" in [event.get("text") for event in events]
    progress = [(event["done"], event["total"]) for event in events if event["kind"] == "progress"]
    assert progress[:done] == [(reused + number + 1, reused + done) for number in range(done)]
    assert 0 < done < 3 < reused


@pytest.mark.parametrize(
    ("fields", "read_again", "encoded_again"),
    [
        ({"filters": [{"measure": "characters", "at_least": 2}]}, True, False),  # what stays is what stayed
        ({"cleaning": {"control": {"use": True}}}, True, False),
        ({"source": {"licence": "CC0"}}, True, False),
        ({"source": {"reading": {"most_document_bytes": 10**7}}}, True, False),
        ({"fuzzy_dedup": {"use": True}}, True, False),  # sketches are made as texts are read
        ({"tokenizer": {"vocabulary": 263}}, False, True),
        ({"split": {"validation_fraction": 0.2, "test_fraction": 0.2, "seed": 1}}, False, True),  # other training texts
        ({"shard_tokens": 2048}, False, False),
        ({"exact_dedup": False, "quarantine_fraction": 0.5}, False, False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_changed_rule_has_all_done_again_that_depends_on_it(
    base: Base, fields: dict[str, Any], read_again: bool, encoded_again: bool
) -> None:
    source = folder_source(base.raw, **fields.get("source", {}))
    found = units(
        base.folder.ingest(little_ingestion(source, **{name: of for name, of in fields.items() if name != "source"}))
    )
    for phase, again in (("read", read_again), ("encode", encoded_again)):
        reused, done = found[phase]
        assert (reused == 0) is again
        assert (done == 0) is not again


def test_a_shard_that_holds_no_changed_document_is_the_same_to_the_byte(tmp_path: Path) -> None:
    folder, raw = DataFolder(tmp_path / "home"), write_texts(tmp_path / "raw", little_texts(120))
    folder.ingest(little_ingestion(raw))
    kept = {"kind": "existing", "path": str(folder.last / "tokenizer.json")}
    first = folder.last
    write_texts(raw, {**little_texts(120), "064b.txt": little_text("new")})
    result = folder.ingest(little_ingestion(raw, tokenizer=kept))
    assert result.summary["tokenizer"]["sha256"] == ShardDataset(first / "tokens" / "train").tokenizer
    for phase in ("read", "encode"):
        reused, done = units(result)[phase]
        assert 1 <= done <= 2 < reused
    for name in ("documents", "tokens/train", "tokens/validation", "tokens/test"):
        assert len(set(shards(folder.last, name)) - set(shards(first, name))) <= 2
    assert len(shards(first, "documents")) > 4
    retrained = folder.ingest(little_ingestion(raw))  # the negative control: one text more, all tokens anew
    assert units(retrained)["read"][1] == 0
    if retrained.outputs["tokenizer.json"] != result.outputs["tokenizer.json"]:
        assert units(retrained)["encode"][0] == 0


def test_rows_that_join_behind_a_table_have_only_its_end_read(tmp_path: Path, digests: Digests) -> None:
    rows = [json.dumps({"text": little_text(number)}) + "\n" for number in range(80)]
    path, folder, new = tmp_path / "texts.jsonl", DataFolder(tmp_path / "home"), DataFolder(tmp_path / "new")
    spec = little_ingestion({"kind": "table", "path": str(path)})
    path.write_text("".join(rows[:70]))
    folder.ingest(spec)
    path.write_text("".join(rows))
    result, fresh = folder.ingest(spec), new.ingest(spec)
    reused, _ = units(result)["read"]
    assert reused > 4
    assert units(result)["read"][1] < units(fresh)["read"][1] / 2
    assert digests(folder.last) == digests(new.last)
    path.write_text("".join([rows[70], *rows[1:]]))  # the negative control: another text in the first part
    assert units(folder.ingest(spec))["read"][1] >= 1


@pytest.mark.parametrize("name", ["images", "captioned images", "audio"])
def test_items_of_other_modalities_join_as_texts_do(name: str, tmp_path: Path, digests: Digests) -> None:
    case, raw = CASES[name], tmp_path / "raw"
    case.write(raw)
    folder, new = DataFolder(tmp_path / "home"), DataFolder(tmp_path / "new")
    spec = case.spec(raw)
    first = units(folder.ingest(spec))["read"][1]
    if name == "captioned images":
        (raw / "pictures" / "new.png").write_bytes(picture(77))
        with open(raw / "table.jsonl", "a") as table:
            table.write(json.dumps({"image": "pictures/new.png", "kind": "rose", "says": "a rose, the last"}) + "\n")
    elif name == "images":
        (raw / "lily" / "new.png").write_bytes(picture(77))
    else:
        (raw / "lily" / "new.wav").write_bytes(tone(333))
    result, fresh = folder.ingest(spec), new.ingest(spec)
    assert result.outputs == fresh.outputs
    assert digests(folder.last) == digests(new.last)
    reused, done = units(result)["read"]
    assert 1 <= done <= 2
    assert reused >= first - 2


def test_units_of_a_killed_ingestion_are_found_by_another_spec(
    base: Base, other: Path, tmp_path: Path, digests: Digests
) -> None:
    killed_at_renames(little_ingestion(base.raw), tmp_path, [12])
    left = len(finished_units(tmp_path / "12"))
    assert left == 2
    folder = DataFolder(tmp_path / "12")
    assert units(folder.ingest(little_ingestion(base.raw, tokenizer=OTHER)))["read"][0] == left
    assert digests(folder.last) == digests(other)


class _Behind:
    """A stop that is asked for as soon as a unit of a phase is finished."""

    def __init__(self, root: Path, phase: str) -> None:
        self._units, self._phase = root, phase

    def requested(self) -> bool:
        return bool(finished_units(self._units, self._phase))


def test_copies_are_looked_for_once_whoever_ends_and_as_long_as_the_documents_are_the_same(
    tmp_path: Path, digests: Digests
) -> None:
    texts = {**little_texts(), "copy.txt": little_text(7), "near.txt": " ".join(little_text(9).split()[1:])}
    raw, folder, new = write_texts(tmp_path / "raw", texts), DataFolder(tmp_path / "home"), DataFolder(tmp_path / "new")
    spec = little_ingestion(raw, fuzzy_dedup={"use": True, "shingle_words": 2, "similarity": 0.5})
    with pytest.raises(Stopped):
        ingest(spec, {}, replace(folder.context(), stop=_Behind(folder.root, "near-copies")))
    assert not finished_units(folder.root, "tokenizer")
    fresh = new.ingest(spec)
    assert sum(count for rule, count in fresh.summary["dropped_by_rule"].items() if "similarity" in rule) == 1
    for again in (spec, spec.model_copy(update={"tokenizer": TokenizerSpec.model_validate(OTHER)})):
        result = folder.ingest(again)
        assert units(result)["exact copies"] == units(result)["near copies"] == (1, 0)
        assert result.summary["dropped_by_rule"] == fresh.summary["dropped_by_rule"]
        if again is spec:
            assert digests(folder.last) == digests(new.last)
    write_texts(raw, {**texts, "other.txt": little_text("other")})  # the negative control
    result = folder.ingest(spec)
    assert units(result)["exact copies"] == units(result)["near copies"] == (0, 1)
    other = folder.ingest(little_ingestion(raw, fuzzy_dedup={"use": True, "shingle_words": 2, "similarity": 0.99}))
    assert units(other)["near copies"] == (0, 1)
    assert not any("similarity" in rule for rule in other.summary["dropped_by_rule"])


def test_two_ingestions_of_one_data_folder_at_once_do_no_harm(
    base: Base, other: Path, tmp_path: Path, digests: Digests
) -> None:
    def start(number: int, spec: IngestSpec) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", INGESTS, spec.model_dump_json(), str(tmp_path), str(number)]
        return subprocess.Popen(command, cwd=Path(__file__).parents[2])

    specs = little_ingestion(base.raw), little_ingestion(base.raw, tokenizer=OTHER)
    both = [start(number, spec) for number, spec in enumerate(specs)]
    assert [one.wait() for one in both] == [0, 0]
    for number, alone in enumerate((base.folder.root / "ingest" / "1", other), 1):
        assert digests(tmp_path / "ingest" / str(number)) == digests(alone)
    assert len(finished_units(tmp_path, "read")) == len(finished_units(other.parents[1], "read"))
