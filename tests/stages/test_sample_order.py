"""The order of a pretraining as its spec says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from foundation_core.data.loading.order import Ahead
from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import ShardDataset, ShardWriter
from foundation_core.data.units.work import TOKENS
from foundation_core.errors import ConfigError
from foundation_core.shape import SampleShape
from foundation_core.specs import MixedGroupSpec, MixtureSpec, PretrainSpec
from foundation_core.stages import sample_order
from foundation_core.stages.sample_order import order_hash, order_of
from foundation_core.stages.training_data import TrainingData


@pytest.fixture
def windows(tmp_path: Path) -> Windows:
    """30 rows of 10 documents of "a", 10 rows of one document of "b"."""
    sizes = [(31, "a")] * 10 + [(101, "b")]
    rows = {
        "document": [str(n) for n in range(11)],
        "group": [g for _, g in sizes],
        "tokens": [[1] * n for n, _ in sizes],
    }
    with ShardWriter(tmp_path, TOKENS, source={}, shard_size=10**9) as writer:
        writer.write(pa.table(rows, schema=TOKENS))
    return Windows(ShardDataset(tmp_path), 10, "one_document", ["a", "b"])


def spec(**mixture: object) -> PretrainSpec:
    groups = (MixedGroupSpec(group="a", weight=1.0), MixedGroupSpec(group="b", weight=1.0))
    return PretrainSpec(steps=10, batch_rows=4, mixture=MixtureSpec.model_validate({"groups": groups, **mixture}))


@pytest.mark.parametrize(("by", "rows"), [("epochs", 30), ("documents", 9)])
def test_weights_count_what_the_spec_says(windows: Windows, by: str, rows: int) -> None:
    taken = order_of(spec(by=by), windows).take(0, 40)
    assert int((taken < 30).sum()) == rows  # of documents, "a" has 3 rows each and "b" 10


def test_a_group_that_would_be_read_too_often_is_refused_with_the_figures(windows: Windows) -> None:
    order_of(spec(by="documents", max_epochs=3.2), windows)
    with pytest.raises(ConfigError, match=r"reads the group 'b' 3\.10 times: 31 rows in 10 steps, and it has 10"):
        order_of(spec(by="documents", max_epochs=3.0), windows)


def test_without_groups_the_order_is_that_of_all_rows(windows: Windows) -> None:
    order = order_of(PretrainSpec(), windows)
    assert order.take(0, 40).sort().values.equal(torch.arange(40))


def hashed(windows: Windows, spec: PretrainSpec) -> str:
    """The order hash of a training on these rows."""
    corpus = TrainingData({"train": windows}, SampleShape(vocabulary=2), None, packed=True, content="c" * 64)
    return order_hash(spec, order_of(spec, windows), corpus)


LATE: list[dict[str, Any]] = [
    {"from_step": 5, "weights": (1.0, 1.0)},
    {"from_step": 8, "weights": (3.0, 1.0)},
    {"from_step": 9, "weights": (1.0, 3.0)},
]
"""Changes of the weights behind the samples whose numbers are hashed below."""


LATER, WEIGHED_OTHERWISE = {**LATE[2], "from_step": 10}, {**LATE[2], "weights": (1.0, 2.0)}


@pytest.mark.parametrize("other", [LATE[:1], LATE[:2], [*LATE[:2], LATER], [*LATE[:2], WEIGHED_OTHERWISE]])
def test_a_change_of_weights_behind_the_hashed_numbers_is_in_the_hash(
    windows: Windows, monkeypatch: pytest.MonkeyPatch, other: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(sample_order, "_HASHED_SAMPLES", 20)
    one, two = spec(max_epochs=9.0, changes=LATE), spec(max_epochs=9.0, changes=other)
    first, second = (order_of(each, windows) for each in (one, two))
    assert first.digest(20) == second.digest(20)  # the negative control: the numbers alone are the same
    assert hashed(windows, one) != hashed(windows, two)
    assert hashed(windows, one) == hashed(windows, spec(max_epochs=9.0, changes=LATE))


def test_the_seed_is_in_the_hash_where_no_number_is(windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_order, "_HASHED_SAMPLES", 0)
    for one in (spec(), PretrainSpec(steps=10, batch_rows=4)):
        assert hashed(windows, one) != hashed(windows, one.model_copy(update={"seed": 1}))
        assert hashed(windows, one) == hashed(windows, one.model_copy())


@pytest.mark.parametrize("change", [{"workers": 4}, {"micro_batch_rows": 1}, {"workers": 2, "engine": "torch"}])
def test_who_computes_is_not_in_the_hash(windows: Windows, change: dict[str, Any]) -> None:
    assert hashed(windows, spec().model_copy(update=change)) == hashed(windows, spec())


def test_an_order_that_is_found_ahead_is_the_same_order(windows: Windows) -> None:
    order = order_of(spec(changes=LATE), windows)
    assert Ahead(order).facts() == order.facts() != order_of(spec(), windows).facts()
