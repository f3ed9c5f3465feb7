"""Windows over documents, and each rank's share of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from foundation_core.data.loading import packing as packing_module
from foundation_core.data.loading.loader import Loader
from foundation_core.data.loading.order import Order
from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.errors import DataError
from foundation_core.specs.loading import Packing

WriteTokens = Callable[..., ShardDataset]

lengths = st.lists(st.integers(1, 12), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) > 1)
quick = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def numbered(sizes: list[int]) -> list[list[int]]:
    """Documents whose tokens are all different, so that a token tells where it is from."""
    start, documents = 1, []
    for size in sizes:
        documents.append(list(range(start, start + size)))
        start += size
    return documents


def windows_of(write: WriteTokens, folder: Path, sizes: list[int], context: int, shard_size: int = 10**9) -> Windows:
    for number in range(10**6):  # hypothesis shares one folder between its examples
        if not (folder / str(number)).exists():
            return Windows(write(folder / str(number), numbered(sizes), shard_size), context)
    raise AssertionError


def labels_of(batch: dict[str, Tensor]) -> Counter[int]:
    return Counter(batch["tokens"][:, 1:][batch["segment"][:, 1:] >= 0].tolist())


@quick
@given(sizes=lengths, context=st.integers(1, 9), shard_size=st.sampled_from([5, 20, 10**9]))
def test_every_token_but_a_shards_first_is_a_label_exactly_once(
    tmp_path: Path, write_tokens: WriteTokens, sizes: list[int], context: int, shard_size: int
) -> None:
    windows = windows_of(write_tokens, tmp_path, sizes, context, shard_size)
    firsts = {table["tokens"][0][0].as_py() for table in windows.dataset.tables()}
    expected = Counter(set(range(1, sum(sizes) + 1)) - firsts)
    assert labels_of(windows.gather(torch.arange(len(windows)))) == expected
    # the negative control: without one window, labels are missing
    assert labels_of(windows.gather(torch.arange(1, len(windows)))) != expected


@quick
@given(sizes=lengths, context=st.integers(1, 9))
def test_segments_and_positions_are_those_of_the_documents(
    tmp_path: Path, write_tokens: WriteTokens, sizes: list[int], context: int
) -> None:
    windows = windows_of(write_tokens, tmp_path, sizes, context)
    owner = {token: number for number, document in enumerate(numbered(sizes)) for token in document}
    batch = windows.gather(torch.arange(len(windows)))
    for row in range(len(windows)):
        tokens, segments, positions = (batch[name][row].tolist() for name in ("tokens", "segment", "position"))
        real = [token for token in tokens if token]
        first = owner[real[0]]
        padding = len(tokens) - len(real)
        assert real == list(range(row * context + 1, row * context + 1 + len(real)))
        assert segments == [owner[token] - first for token in real] + [-1] * padding
        starts = {segment: segments.index(segment) for segment in set(segments)}
        expected = [place - starts[segment] for place, segment in enumerate(segments[: len(real)])]
        assert positions == expected + [0] * padding


def test_rows_come_in_the_order_asked_for_from_any_shard(tmp_path: Path, write_tokens: WriteTokens) -> None:
    windows = windows_of(write_tokens, tmp_path, [7, 3, 9, 4, 8, 6], context=4, shard_size=8)
    assert windows.dataset.shards > 2
    every = windows.gather(torch.arange(len(windows)))
    mixed = torch.tensor([5, 0, 3, 5, 1])
    for name, values in windows.gather(mixed).items():
        assert values.equal(every[name][mixed])
        assert values.dtype == torch.int32


def test_one_lone_token_is_no_data(tmp_path: Path, write_tokens: WriteTokens) -> None:
    with pytest.raises(DataError, match="nothing to predict"):
        windows_of(write_tokens, tmp_path, [1], context=4)


@pytest.fixture
def windows(tmp_path: Path, write_tokens: WriteTokens) -> Windows:
    return windows_of(write_tokens, tmp_path, [9, 4, 17, 8, 30, 2, 5], context=5, shard_size=30)


def rows_of(loader: Loader, step: int) -> dict[str, Tensor]:
    batches = loader.micro_batches(step)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("micro_batch_rows", [1, 2, 64])
def test_the_ranks_together_hold_the_global_batch_in_order(windows: Windows, world: int, micro_batch_rows: int) -> None:
    order, batch_rows = Order(len(windows), seed=1), 6  # 4 ranks get 2, 2, 1, 1 rows; 8 ranks 1 or none
    whole = Loader(windows, order, batch_rows, batch_rows)
    for step in range(8):  # 8 steps of 6 rows are more than two epochs
        ranks = [Loader(windows, order, batch_rows, micro_batch_rows, rank, world) for rank in range(world)]
        parts = [rows_of(rank, step) for rank in ranks]
        for name, expected in rows_of(whole, step).items():
            assert torch.cat([part[name][part["sample"] >= 0] for part in parts]).equal(expected)
    # the negative control: another order is told apart
    other = Loader(windows, Order(len(windows), seed=2), batch_rows, batch_rows)
    assert not rows_of(other, 0)["tokens"].equal(rows_of(whole, 0)["tokens"])


@pytest.mark.parametrize("world", [2, 3, 4, 8])
def test_every_rank_makes_the_same_passes_and_padding_rows_hold_no_label(windows: Windows, world: int) -> None:
    order = Order(len(windows), seed=1)
    ranks = [Loader(windows, order, 6, 2, rank, world).micro_batches(3) for rank in range(world)]
    shapes = [[batch["tokens"].shape for batch in batches] for batches in ranks]
    assert all(shape == shapes[0] for shape in shapes)
    for batch in (batch for batches in ranks for batch in batches):
        padding = batch["sample"] < 0
        assert (batch["segment"][padding] == -1).all()
        assert (batch["segment"][~padding][:, 0] == 0).all()


def test_a_new_loader_goes_on_where_another_stopped(windows: Windows) -> None:
    old, new = (Loader(windows, Order(len(windows), seed=4), 6, 3) for _ in range(2))
    for step in range(5):
        old.micro_batches(step)
    for name, values in rows_of(new, 5).items():
        assert values.equal(rows_of(old, 5)[name])


def test_samples_are_numbered_through_the_run_and_read_from_the_order(windows: Windows) -> None:
    order = Order(len(windows), seed=2)
    rows = rows_of(Loader(windows, order, 6, 4), step=7)
    assert rows["sample"].tolist() == list(range(42, 48))
    assert rows["tokens"].equal(windows.gather(order.take(42, 6))["tokens"])


@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "compiled"])
@pytest.mark.parametrize("packing", ["cut", "best_fit"])
def test_shards_beyond_the_bound_are_closed_and_opened_again(
    tmp_path: Path, write_tokens: WriteTokens, packing: Packing, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_tokens(tmp_path / "many", numbered([6] * 40), 20)
    assert dataset.shards > 6
    everything = Windows(dataset, 4, packing, compiled=compiled)
    indices = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))
    expected = everything.gather(indices)

    monkeypatch.setattr(packing_module, "OPEN_SHARDS", 3)
    bounded = Windows(ShardDataset(dataset.folder), 4, packing, compiled=compiled)
    open_shards = []
    for first in range(0, len(indices), 2):
        found = bounded.gather(indices[first : first + 2])
        assert all(torch.equal(found[name], expected[name][first : first + 2]) for name in expected)
        open_shards.append(len(bounded.dataset._tables))
    assert max(open_shards) <= 3 < len(everything.dataset._tables)
    whole = bounded.gather(indices)  # a batch that needs more of them than the bound is made all the same
    assert all(torch.equal(whole[name], expected[name]) for name in expected)
