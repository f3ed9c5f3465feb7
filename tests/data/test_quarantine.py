"""What is quarantined is hidden wherever it is read, and nothing else is."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest
import torch

from foundation_core.data.loading.loader import Loader
from foundation_core.data.loading.order import Order
from foundation_core.data.loading.packing import Windows
from foundation_core.data.loading.quarantine import Quarantine, first_sample
from foundation_core.data.shards.dataset import ShardDataset, ShardWriter
from foundation_core.data.units.work import TOKENS
from foundation_core.errors import ConfigError

CONTEXT = 12
GROUPS = ("a", "b")
WAYS: dict[str, dict[str, Any]] = {
    "cut": {},
    "best_fit": {"packing": "best_fit"},
    "one_document": {"packing": "one_document"},
    "cut, by groups": {"groups": ["b", "a"]},
    "best_fit, by groups": {"packing": "best_fit", "groups": ["b", "a"]},
    "one group": {"groups": ["a"]},
    "cut, compiled": {"compiled": True},
    "best_fit, compiled": {"packing": "best_fit", "compiled": True},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """Documents of 0 to 60 tokens in several shards; every token says which document it is of."""
    folder, draw = tmp_path_factory.mktemp("tokens") / "train", random.Random(3)
    lengths = [draw.choice([0, 1, 2, 3, 5, 11, 12, 13, 14, 60]) for _ in range(120)]
    rows = {
        "document": [f"test/{number:04d}" for number in range(len(lengths))],
        "group": [draw.choice(GROUPS) for _ in lengths],
        "tokens": [[number + 1] * length for number, length in enumerate(lengths)],
    }
    with ShardWriter(folder, TOKENS, source={}, shard_size=150) as writer:
        writer.write(pa.table(rows, schema=TOKENS))
    found = ShardDataset(folder)
    assert found.shards > 2
    return found


def _name(token: int) -> str:
    return f"test/{token - 1:04d}"


@pytest.mark.parametrize("way", WAYS)
def test_the_documents_of_rows_are_those_that_their_tokens_are_of(dataset: ShardDataset, way: str) -> None:
    rows = Windows(dataset, CONTEXT, **WAYS[way])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    batch = rows.gather(order)
    for number, documents in enumerate(rows.documents_of(order)):
        segments, tokens = batch["segment"][number].tolist(), batch["tokens"][number].tolist()
        said = {documents[segment] for segment in segments if segment >= 0}
        there = [(documents[s], _name(t)) for s, t in zip(segments, tokens, strict=True) if s >= 0]
        assert said
        assert all(found == expected for found, expected in there)


@pytest.mark.parametrize("way", WAYS)
def test_the_rows_of_documents_are_all_that_hold_a_token_of_them(dataset: ShardDataset, way: str) -> None:
    rows = Windows(dataset, CONTEXT, **WAYS[way])
    tokens = rows.gather(torch.arange(len(rows)))["tokens"]
    for number in range(120):
        expected = (tokens == number + 1).any(dim=1).nonzero().squeeze(1)
        assert rows.rows_of([_name(number + 1)]).tolist() == expected.tolist()
    pair = rows.rows_of([_name(9), _name(21)])
    assert pair.tolist() == torch.isin(tokens, torch.tensor([9, 21])).any(dim=1).nonzero().squeeze(1).tolist()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("hidden", [[5], [7, 8, 9], list(range(30, 60))], ids=["one", "neighbours", "many"])
def test_hidden_documents_are_padding_and_all_else_keeps_its_place(
    dataset: ShardDataset, way: str, hidden: list[int]
) -> None:
    rows = Windows(dataset, CONTEXT, **WAYS[way])
    quarantine = Quarantine(rows, [_name(token) for token in hidden])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    batch = rows.gather(order)
    before = {name: values.clone() for name, values in batch.items()}
    gone = torch.isin(before["tokens"], torch.tensor(hidden)) & (before["segment"] >= 0)
    after = quarantine.hide(order, batch)
    for name, padding in (("tokens", 0), ("segment", -1), ("position", 0)):
        assert torch.equal(after[name], before[name].masked_fill(gone, padding))
        assert torch.equal(batch[name], before[name]), "the batch itself is left alone"


def test_a_document_that_is_not_there_is_refused(dataset: ShardDataset) -> None:
    with pytest.raises(ConfigError, match="'test/0999', which is no document"):
        Quarantine(Windows(dataset, CONTEXT), ["test/0003", "test/0999"])


def test_one_that_is_there_but_of_no_group_that_is_read_hides_nothing(dataset: ShardDataset) -> None:
    rows = Windows(dataset, CONTEXT, groups=["a"])
    others = [name for name, group in _groups(dataset).items() if group == "b"]
    assert len(Quarantine(rows, others).rows) == 0


def _groups(dataset: ShardDataset) -> dict[str, str]:
    tables = list(dataset.tables())
    return {
        name: group
        for table in tables
        for name, group in zip(table["document"].to_pylist(), table["group"].to_pylist(), strict=True)
    }


@pytest.mark.parametrize("world", [1, 2, 3])
def test_any_number_of_ranks_hides_the_same(dataset: ShardDataset, world: int) -> None:
    rows = Windows(dataset, CONTEXT)
    quarantine = Quarantine(rows, [_name(token) for token in (5, 30, 31)])
    order = Order(len(rows), 0)
    expected = quarantine.hide(order.take(0, 20), rows.gather(order.take(0, 20)))
    parts = [
        batch
        for rank in range(world)
        for batch in Loader(rows, order, 20, 3, rank, world, hide=quarantine.hide).micro_batches(0)
    ]
    together = {name: torch.cat([part[name] for part in parts]) for name in ("tokens", "segment", "sample")}
    there = together["sample"] >= 0
    assert torch.equal(together["tokens"][there], expected["tokens"])
    assert torch.equal(together["segment"][there], expected["segment"])


def test_the_first_sample_is_found_wherever_it_lies() -> None:
    order = Order(50, 7)
    for row in range(50):
        expected = order.take(0, 50).tolist().index(row)
        assert first_sample(order, torch.tensor([row]), 50) == expected
        assert first_sample(order, torch.tensor([row]), expected) is None
