"""Samples by number: what was ingested is what a model reads, and what a served model will read of the same item."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foundation_core.data.loading.loader import Loader
from foundation_core.data.loading.order import Order
from foundation_core.data.loading.quarantine import Quarantine
from foundation_core.data.loading.samples import Samples
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources.digits import TEST_IMAGES, digit_captions
from foundation_core.data.sources.documents import open_source
from foundation_core.data.split import SPLITS
from foundation_core.data.tokens.byte_level import END_ID, load_tokenizer
from foundation_core.data.values.features import FEATURES_FILE, load_features, measure
from foundation_core.errors import DataError
from foundation_core.shape import SampleShape
from foundation_core.specs import IngestSpec, SourceSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.store import StageResult

Made = tuple[Path, StageResult]


def _spec(kind: str, **fields: Any) -> IngestSpec:
    small = {"image": {"size_pixels": 8, "channels": 1}, "tokenizer": {"vocabulary": 300}, "shard_tokens": 4096}
    return IngestSpec.model_validate({"source": {"kind": kind}, **small, **fields})


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, serial_context: Callable[[Path], Context]) -> Made:
    folder = tmp_path_factory.mktemp("digits")
    return folder, ingest(_spec("digits"), {}, serial_context(folder))


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory, serial_context: Callable[[Path], Context]) -> Made:
    folder = tmp_path_factory.mktemp("captioned")
    return folder, ingest(_spec("digits_with_captions"), {}, serial_context(folder))


def samples_of(made: Made, split: str, caption_tokens: int | None = None) -> Samples:
    folder = made[0]
    return Samples(ShardDataset(folder / "samples" / split), load_features(folder), caption_tokens)


def test_the_last_360_digits_are_the_test_set_and_no_other_is(digits: Made) -> None:
    tests = samples_of(digits, "test").documents()
    assert tests == [f"digits/{number:04d}" for number in range(1797 - TEST_IMAGES, 1797)]
    rest = samples_of(digits, "train").documents() + samples_of(digits, "validation").documents()
    assert sorted(rest) == [f"digits/{number:04d}" for number in range(1797 - TEST_IMAGES)]
    assert 0.07 < len(samples_of(digits, "validation")) / len(rest) < 0.13  # the usual fraction, a tenth, of the rest


def test_a_sample_is_the_image_of_its_document_with_its_digit_as_the_group(digits: Made) -> None:
    from sklearn.datasets import load_digits

    original = load_digits()
    for split in SPLITS:
        samples = samples_of(digits, split)
        numbers = [int(document.split("/")[1]) for document in samples.documents()]
        assert samples.groups() == [str(original.target[number]) for number in numbers]
        statistics = samples.features.statistics
        pixels = samples.gather(torch.arange(len(samples)))["values"] * statistics.std[0] + statistics.mean[0]
        levels = torch.tensor(original.images[numbers]).unsqueeze(1) * 255 / 16
        assert (pixels - levels).abs().max() <= 0.5 + 1e-4  # rounded to whole brightness, and a float32 away from it


def test_the_training_split_has_mean_0_and_deviation_1_and_the_test_split_has_not(digits: Made) -> None:
    train, test = (samples_of(digits, split) for split in ("train", "test"))
    values = train.gather(torch.arange(len(train)))["values"].double()
    assert abs(values.mean()) < 1e-6
    assert abs(values.std(unbiased=False) - 1) < 1e-6
    assert abs(test.gather(torch.arange(len(test)))["values"].mean()) > 1e-3


def test_a_prepared_item_is_its_sample_to_the_bit(digits: Made, tmp_path: Path) -> None:
    samples = samples_of(digits, "validation")
    items = {file.document: file for file in open_source(SourceSpec(kind="digits")).files()}
    values = samples.gather(torch.arange(len(samples)))["values"]
    shutil.copy(digits[0] / FEATURES_FILE, tmp_path)
    features = load_features(tmp_path)  # alone, as a registered model has it
    for row in (0, 7, len(samples) - 1):
        data = items[samples.documents()[row]].read()
        assert features.prepare(data).equal(values[row])
        (tmp_path / "image.pgm").write_bytes(data)
        assert features.prepare(tmp_path / "image.pgm").equal(values[row])
    with pytest.raises(ValueError, match="not an image that can be decoded: no known format"):
        features.prepare(b"junk")


def test_samples_come_in_the_order_asked_for_from_any_shard(digits: Made) -> None:
    samples = samples_of(digits, "train")
    assert samples.dataset.shards > 2
    every = samples.gather(torch.arange(len(samples)))["values"]
    mixed = torch.tensor([len(samples) - 1, 0, 700, 0, 300])
    assert samples.gather(mixed)["values"].equal(every[mixed])
    assert samples.gather(torch.empty(0, dtype=torch.int64))["values"].shape == (0, 1, 8, 8)


def test_captions_are_templates_of_the_digit_in_two_languages_and_their_tokens_spell_them(captioned: Made) -> None:
    samples = samples_of(captioned, "train")
    batch = samples.gather(torch.arange(len(samples)))
    tokenizer = load_tokenizer(captioned[0] / "tokenizer.json")
    captions = samples.captions()
    assert all(caption in digit_captions(int(group)) for caption, group in zip(captions, samples.groups(), strict=True))
    spanish = Counter("número" in caption or "cifra" in caption or caption.startswith("un ") for caption in captions)
    assert 0.4 < spanish[True] / len(captions) < 0.6
    for row, caption in enumerate(captions):
        real = batch["segment"][row] == 0
        tokens = batch["tokens"][row][real].tolist()
        assert tokenizer.decode(tokens[:-1]) == caption
        assert tokens[-1] == END_ID
        assert (batch["segment"][row][~real] == -1).all()
        assert (batch["tokens"][row][~real] == 0).all()
        assert real.tolist() == sorted(real.tolist(), reverse=True)
    assert samples.shape == SampleShape(vocabulary=300, channels=1, height=8, width=8)


@pytest.mark.parametrize("length", [3, 40])
def test_captions_are_cut_or_padded_to_the_length_that_is_asked_for(captioned: Made, length: int) -> None:
    usual, asked = samples_of(captioned, "test"), samples_of(captioned, "test", caption_tokens=length)
    every = torch.arange(len(usual))
    shared = min(length, usual.caption_tokens)
    for name in ("tokens", "segment"):
        assert asked.gather(every)[name].shape == (len(usual), length)
        before_the_last = shared if length == 40 or name == "segment" else shared - 1
        assert asked.gather(every)[name][:, :before_the_last].equal(usual.gather(every)[name][:, :before_the_last])


@pytest.mark.parametrize("length", [1, 3, 9, 40])
def test_every_caption_ends_with_its_end_token_and_those_that_are_cut_are_counted(captioned: Made, length: int) -> None:
    usual, asked = samples_of(captioned, "train"), samples_of(captioned, "train", caption_tokens=length)
    batch, whole = (of.gather(torch.arange(len(usual))) for of in (asked, usual))
    tokens = (batch["segment"] == 0).sum(1)
    assert (batch["tokens"].gather(1, tokens[:, None] - 1) == END_ID).all()
    assert int((batch["tokens"] == END_ID).logical_and(batch["segment"] == 0).sum()) == len(usual)
    cut = int(((whole["segment"] == 0).sum(1) > length).sum())
    assert asked.captions_cut() == (cut, len(usual))
    assert (cut > 0) == (length < usual.caption_tokens)
    assert usual.dataset.shards > 2


def rows_of(loader: Loader, step: int) -> dict[str, Tensor]:
    batches = loader.micro_batches(step)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@pytest.mark.parametrize("world", [1, 3, 8])
def test_a_loader_gives_the_ranks_their_share_of_samples_and_pads_every_key(captioned: Made, world: int) -> None:
    samples = samples_of(captioned, "validation")
    order = Order(len(samples), seed=1)
    whole = rows_of(Loader(samples, order, 5, 5), step=40)  # beyond the first epoch
    parts = [rows_of(Loader(samples, order, 5, 2, rank, world), step=40) for rank in range(world)]
    assert len({len(part["sample"]) for part in parts}) == 1
    for name, expected in whole.items():
        assert torch.cat([part[name][part["sample"] >= 0] for part in parts]).equal(expected)
    for part in parts:
        padding = part["sample"] < 0
        assert (part["segment"][padding] == -1).all()
        assert not part["values"][padding].any()


def test_features_of_a_newer_version_and_tokens_in_place_of_samples_are_refused(digits: Made, tmp_path: Path) -> None:
    body = json.loads((digits[0] / FEATURES_FILE).read_text())
    (tmp_path / FEATURES_FILE).write_text(json.dumps({**body, "version": 2}))
    with pytest.raises(DataError, match="has version 2"):
        load_features(tmp_path)
    with pytest.raises(DataError, match="holds no samples"):
        Samples(ShardDataset(digits[0] / "documents"), load_features(digits[0]))


@given(
    rows=st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=6, max_size=6), min_size=1, max_size=9),
    cut=st.integers(0, 9),
)
def test_statistics_do_not_depend_on_how_rows_are_cut_and_are_those_of_numpy(rows: list[list[float]], cut: int) -> None:
    import numpy

    def table(part: list[list[float]]) -> pa.Table:
        return pa.table({"values": pa.array(part, pa.list_(pa.float32(), 6))})

    shape = SampleShape(channels=2, height=1, width=3)
    found = measure([table(rows)], shape)
    assert measure([table(rows[:cut]), table(rows[cut:])], shape) == found
    assert measure([table(rows[cut:]), table(rows[:cut])], shape) == found
    channels = numpy.array(rows, dtype=numpy.float64).reshape(-1, 2, 3).transpose(1, 0, 2).reshape(2, -1)
    assert found.mean == pytest.approx(channels.mean(1), rel=1e-9, abs=1e-6)
    assert found.std == pytest.approx([deviation or 1.0 for deviation in channels.std(1)], rel=1e-9, abs=1e-6)


def test_a_quarantined_sample_is_a_row_of_padding_for_any_number_of_ranks(captioned: Made) -> None:
    samples = samples_of(captioned, "train")
    order, names = Order(len(samples), 3), samples.documents()
    hidden = [names[int(row)] for row in order.take(0, 40)[::7]]
    quarantine = Quarantine(samples, hidden)
    assert samples.documents_of(quarantine.rows) == [[name] for name in sorted(hidden, key=names.index)]
    free = rows_of(Loader(samples, order, 40, 40), 0)
    for world in (1, 3):
        ranks = [rows_of(Loader(samples, order, 40, 4, rank, world, hide=quarantine.hide), 0) for rank in range(world)]
        together = {name: torch.cat([rank[name] for rank in ranks]) for name in free}
        row = {int(number): place for place, number in enumerate(together["sample"]) if number >= 0}
        assert sorted(row) == [number for number in range(40) if number % 7]
        for name in ("values", "tokens", "segment"):
            assert torch.equal(together[name][list(row.values())], free[name][list(row)])
        gone = together["sample"] < 0
        assert not together["values"][gone].any()
        assert bool((together["segment"][gone] == -1).all())
