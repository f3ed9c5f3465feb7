"""Every modality is ingested as texts are: the same bytes whoever works on it, nothing lost, nothing done twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from foundation_core.data.loading.samples import Samples
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources.documents import open_source
from foundation_core.data.sources.modalities import ingest_key
from foundation_core.data.split import SPLITS
from foundation_core.data.values.features import FEATURES_FILE, load_features
from foundation_core.errors import ConfigError, DataError, Stopped
from foundation_core.pages.card import finished_card
from foundation_core.shape import SampleShape
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.store import StageResult
from tests.support.faults import StopAfter
from tests.support.ingestion import ProcessPool, ShuffledPool, finished_units, killed_at_renames
from tests.support.raw_items import CASES, Case, picture, tone

Build = Callable[..., Context]
Digests = Callable[[Path], dict[str, str]]

SHAPES = {
    "images": SampleShape(channels=3, height=8, width=8),
    "captioned images": SampleShape(vocabulary=270, channels=3, height=8, width=8),
    "audio": SampleShape(channels=1, height=16, width=12),
    "series": SampleShape(channels=2, height=1, width=10),
}


class Reference(NamedTuple):
    case: Case
    raw: Path
    folder: Path
    result: StageResult

    def spec(self, **fields: Any) -> IngestSpec:
        return self.case.spec(self.raw, **fields)


@pytest.fixture(scope="module", params=CASES)
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, serial_context: Build
) -> Reference:
    case, raw, folder = CASES[request.param], tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("made")
    case.write(raw)
    return Reference(case, raw, folder, ingest(case.spec(raw), {}, serial_context(folder)))


def rows_in(folder: Path, name: str) -> list[dict[str, Any]]:
    return [row for table in ShardDataset(folder / name).tables() for row in table.to_pylist()]


def test_items_in_are_kept_dropped_or_quarantined_with_the_reason(reference: Reference) -> None:
    counts = reference.result.summary["documents"]
    assert counts["in"] == counts["kept"] + counts["dropped"] + counts["quarantined"]
    quarantined = {row["document"]: row["reason"] for row in rows_in(reference.folder, "quarantined")}
    assert {name: reason.partition(" (")[0] for name, reason in quarantined.items()} == dict(reference.case.reasons)
    assert sum(reference.result.summary["quarantined_by_reason"].values()) == len(quarantined)
    samples = [row["document"] for split in SPLITS for row in rows_in(reference.folder, f"samples/{split}")]
    assert sorted(samples) == sorted(row["document"] for row in rows_in(reference.folder, "documents"))
    assert len(set(samples)) == counts["kept"] > 30
    assert (
        reference.result.summary["shape"]
        == SHAPES[next(name for name in CASES if CASES[name] is reference.case)].to_json()
    )


def test_a_copy_is_dropped_and_names_what_stays(tmp_path: Path, serial_context: Build) -> None:
    case = CASES["images"]
    case.write(tmp_path / "raw")
    ingest(case.spec(tmp_path / "raw"), {}, serial_context(tmp_path / "made"))
    (copy,) = rows_in(tmp_path / "made", "dropped")
    assert {copy["document"], copy["kept"]} == {"image_folder/moss/copy.png", "image_folder/rose/00.png"}


@pytest.mark.parametrize("pool", [ProcessPool(), ShuffledPool()], ids=["two processes", "shuffled"])
def test_the_bytes_do_not_depend_on_who_works_on_it(
    reference: Reference, tmp_path: Path, serial_context: Build, digests: Digests, pool: Any
) -> None:
    again = ingest(reference.spec(), {}, serial_context(tmp_path / "again", pool=pool))
    assert digests(tmp_path / "again") == digests(reference.folder)
    assert (again.outputs, again.summary) == (reference.result.outputs, reference.result.summary)


def test_the_bytes_do_not_depend_on_the_size_of_units_or_the_place_of_the_source(
    reference: Reference, tmp_path: Path, serial_context: Build, digests: Digests
) -> None:
    shutil.copytree(reference.raw, tmp_path / "elsewhere")
    ingest(reference.case.spec(tmp_path / "elsewhere", unit_bytes=10**6), {}, serial_context(tmp_path / "again"))
    assert digests(tmp_path / "again") == digests(reference.folder)
    other = reference.spec(split={"validation_fraction": 0.3, "test_fraction": 0.3})  # the negative control
    ingest(other, {}, serial_context(tmp_path / "other"))
    assert digests(tmp_path / "other") != digests(reference.folder)


def test_stopped_it_keeps_finished_units_and_continues_to_the_same_bytes(
    reference: Reference, tmp_path: Path, serial_context: Build, digests: Digests
) -> None:
    with pytest.raises(Stopped, match="run the same command again"):
        ingest(reference.spec(), {}, serial_context(tmp_path, stop=StopAfter(2)))
    finished = finished_units(tmp_path)
    assert finished
    assert not (tmp_path / "samples").exists()
    ingest(reference.spec(), {}, serial_context(tmp_path))
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    assert digests(tmp_path) == digests(reference.folder)


def test_killed_before_a_rename_it_continues_to_the_same_bytes(
    reference: Reference, tmp_path: Path, serial_context: Build, digests: Digests
) -> None:
    renames = 5 * len(finished_units(reference.folder, "read")) + 1  # in a unit, behind the first one, at the end
    renames += 3 * len(finished_units(reference.folder, "encode"))
    renames += 3 * len(finished_units(reference.folder, "tokenizer"))
    points = [1, 5, renames + 2]
    killed_at_renames(reference.spec(), tmp_path, points)
    for point in points:
        folder = tmp_path / str(point)
        with pytest.raises(DataError, match="not a finished data set"):
            ShardDataset(folder / "samples" / "train")
        ingest(reference.spec(), {}, serial_context(folder))
        assert digests(folder) == digests(reference.folder)


def test_too_many_that_cannot_be_read_stop_it_with_the_reasons(
    reference: Reference, tmp_path: Path, serial_context: Build
) -> None:
    first, reason = next(iter(sorted(reference.case.reasons.items())))
    with pytest.raises(DataError, match=r"of (at most )?\d+ documents cannot be read") as refused:
        ingest(reference.spec(quarantine_fraction=0.001), {}, serial_context(tmp_path))
    assert f"{first}: {reason}" in str(refused.value)
    assert not (tmp_path / "samples").exists()


def test_samples_have_mean_0_and_deviation_1_in_training_by_channel(reference: Reference) -> None:
    import torch

    samples = Samples(ShardDataset(reference.folder / "samples" / "train"), load_features(reference.folder))
    values = samples.gather(torch.arange(len(samples)))["values"].double()
    assert values.shape[1:] == (samples.shape.channels, samples.shape.height, samples.shape.width)
    # normalised in float32: 9.0e-6 measured, of the series' column around 1,000; 1e-7 for all others and the variances
    assert values.mean((0, 2, 3)).abs().max() < 2e-5
    assert (values.var((0, 2, 3), correction=0) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["images", "audio"])
def test_the_statistics_have_seen_no_validation_or_test_item(name: str, tmp_path: Path, serial_context: Build) -> None:
    case = CASES[name]
    case.write(tmp_path / "raw")
    result = ingest(case.spec(tmp_path / "raw"), {}, serial_context(tmp_path / "made"))
    for split, same in (("validation", True), ("test", True), ("train", False)):  # the last is the negative control
        changed = shutil.copytree(tmp_path / "raw", tmp_path / f"changed-{split}")
        chosen = rows_in(tmp_path / "made", f"samples/{split}")[0]["document"].partition("/")[2]
        (changed / chosen).write_bytes(picture(99) if name == "images" else tone(3000, seconds=0.1))
        again = ingest(case.spec(changed), {}, serial_context(tmp_path / f"made-{split}"))
        assert (again.outputs[FEATURES_FILE] == result.outputs[FEATURES_FILE]) is same
        manifest = f"samples/{split}/manifest.json"
        assert again.outputs[manifest] != result.outputs[manifest]


def test_the_key_holds_what_the_modality_reads_and_the_libraries_that_decode(reference: Reference) -> None:
    spec = reference.spec()
    key = ingest_key(spec, "content")
    changed = {
        "image": {"size_pixels": 9},
        "audio": {"mel_bins": 17},
        "series": {"columns": ["warm"]},
    }
    read = [name for name, part in changed.items() if ingest_key(reference.spec(**{name: part}), "content") != key]
    modality = open_source(spec.source).modality
    assert read == [modality]
    decoding = {"image": {"pillow"}, "audio": {"soundfile", "soxr", "numpy"}, "series": set()}[modality]
    assert set(key.parts["libraries"]) == {"pyarrow", "tokenizers", "fastokens", *decoding}


def test_a_filter_on_texts_is_refused_for_images_and_works_on_captions(tmp_path: Path, serial_context: Build) -> None:
    for name in ("images", "captioned images"):
        CASES[name].write(tmp_path / name)
    filters = [{"measure": "characters", "at_least": 13}]
    with pytest.raises(ConfigError, match=r"measures texts \(characters\), and this source's image items have none"):
        ingest(CASES["images"].spec(tmp_path / "images", filters=filters), {}, serial_context(tmp_path / "made"))
    for others in ("judge", "drop"):
        each = {"language": "each", "other_languages": others}
        with pytest.raises(ConfigError, match=r"language=each looks for the language of texts, and .* image items"):
            ingest(CASES["images"].spec(tmp_path / "images", quality=each), {}, serial_context(tmp_path / "made"))
    captioned = CASES["captioned images"].spec(tmp_path / "captioned images", filters=filters)
    ingest(captioned, {}, serial_context(tmp_path / "captions"))
    dropped = rows_in(tmp_path / "captions", "dropped")
    assert {row["rule"] for row in dropped} == {"characters >= 13"}
    assert {row["value"] for row in dropped} == {12}
    assert len(dropped) == 8  # "a rose, no 0" to "a rose, no 9"; one has no caption and one no image


def test_the_data_card_accounts_for_every_item_and_says_how_it_was_read(reference: Reference) -> None:
    result = reference.result
    card = finished_card(reference.folder, reference.spec(), result.summary, result.outputs).markdown
    counts = result.summary["documents"]
    assert f"{counts['in']:,} documents in = **{counts['kept']:,} kept** + {counts['dropped']:,} dropped" in card
    assert result.summary["reading"] in card
    assert all(reason in card for reason in reference.case.reasons.values())
    assert result.outputs[FEATURES_FILE] in card
