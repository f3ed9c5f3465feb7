"""The order of a pretraining as its spec says."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from foundation_core.data.packing import Windows
from foundation_core.data.shards import ShardDataset, ShardWriter
from foundation_core.data.units import TOKENS
from foundation_core.errors import ConfigError
from foundation_core.specs import MixedGroupSpec, MixtureSpec, PretrainSpec
from foundation_core.stages.sample_order import order_of


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
