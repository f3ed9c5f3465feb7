"""Packing without cutting: which documents share a row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from foundation_core.data.loading import pieces
from foundation_core.data.loading.packing import Windows
from foundation_core.data.loading.pieces import best_fit
from foundation_core.data.shards.dataset import ShardDataset, ShardWriter
from foundation_core.data.units.work import TOKENS
from foundation_core.errors import ConfigError
from foundation_core.specs.loading import Packing

quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
documents = st.lists(st.tuples(st.integers(1, 30), st.sampled_from("ab")), min_size=1, max_size=25)
contexts = st.integers(1, 12)
shard_sizes = st.sampled_from([10, 60, 10**9])


def written(folder: Path, sizes: list[tuple[int, str]], shard_size: int) -> ShardDataset:
    """Documents of those lengths and groups whose tokens are all different, from 1 on."""
    folder = folder / str(len(list(folder.iterdir())))
    starts = [1 + sum(size for size, _ in sizes[:number]) for number in range(len(sizes))]
    tokens = [list(range(start, start + size)) for start, (size, _) in zip(starts, sizes, strict=True)]
    names = [str(number) for number in range(len(sizes))]
    rows = pa.table({"document": names, "group": [group for _, group in sizes], "tokens": tokens}, schema=TOKENS)
    with ShardWriter(folder, TOKENS, source={}, shard_size=shard_size) as writer:
        writer.write(rows)
    return ShardDataset(folder)


def labels_of(batch: dict[str, Tensor]) -> Counter[int]:
    """Tokens that are predicted: those whose neighbour on the left is of the same document."""
    same = (batch["segment"][:, 1:] == batch["segment"][:, :-1]) & (batch["segment"][:, 1:] >= 0)
    return Counter(batch["tokens"][:, 1:][same].tolist())


def owners(sizes: list[tuple[int, str]]) -> list[int]:
    """The document of each token; token 0 is none."""
    return [-1, *(number for number, (size, _) in enumerate(sizes) for _ in range(size))]


@quick
@given(sizes=documents, context=contexts, shard_size=shard_sizes, packing=st.sampled_from(["best_fit", "one_document"]))
def test_every_token_of_a_document_but_its_first_is_a_label_once_and_only_long_documents_are_cut(
    tmp_path: Path, sizes: list[tuple[int, str]], context: int, shard_size: int, packing: Packing
) -> None:
    sizes = [*sizes, (2, "a")]
    windows = Windows(written(tmp_path, sizes, shard_size), context, packing)
    batch = windows.gather(torch.arange(len(windows)))
    owner = owners(sizes)
    firsts = {token for token, of in enumerate(owner) if token and owner[token - 1] != of}
    assert labels_of(batch) == Counter(set(range(1, len(owner))) - firsts)
    rows_of = Counter[int]()
    for row in range(len(windows)):
        tokens, segments, positions = (batch[name][row].tolist() for name in ("tokens", "segment", "position"))
        real = [token for token in tokens if token]
        assert tokens == real + [0] * (len(tokens) - len(real))
        numbers = list(dict.fromkeys(owner[token] for token in real))
        assert [numbers[segment] for segment in segments if segment >= 0] == [owner[token] for token in real]
        starts = [segments.index(segment) for segment in segments]
        assert positions == [place - start if tokens[place] else 0 for place, start in enumerate(starts)]
        rows_of.update(numbers)
        assert packing == "best_fit" or len(numbers) == 1
    for number, (size, _) in enumerate(sizes):
        assert rows_of[number] == -(-(size - 1) // context)
    # what is said of the fill is what the rows hold
    if packing == "best_fit":
        filled = float((batch["segment"] >= 0).float().mean())
        assert windows.filled_fraction() == pytest.approx(filled)


@quick
@given(sizes=st.lists(st.integers(2, 20), max_size=60), capacity=st.integers(20, 30))
def test_best_fit_is_that_of_looking_at_every_row(sizes: list[int], capacity: int) -> None:
    rooms: list[int] = []
    changed: list[int] = []
    expected = {}
    for time, number in enumerate(sorted(range(len(sizes)), key=lambda number: -sizes[number])):
        fitting = [row for row, room in enumerate(rooms) if room >= sizes[number]]
        row = min(fitting, key=lambda row: (rooms[row], -changed[row]), default=len(rooms))
        if row == len(rooms):
            rooms.append(capacity)
            changed.append(time)
        rooms[row] -= sizes[number]
        changed[row] = time
        expected[number] = row
    found, following = best_fit(torch.tensor(sizes, dtype=torch.int64), capacity)
    assert found.tolist() == [expected[number] for number in range(len(sizes))]
    assert following == len(rooms)


def test_documents_are_packed_in_windows_so_that_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = written(tmp_path, [(6, "a"), (6, "a"), (5, "a"), (5, "a")], 10**9)
    assert len(Windows(dataset, 10, "best_fit")) == 2
    monkeypatch.setattr(pieces, "WINDOW_DOCUMENTS", 2)
    assert len(Windows(dataset, 10, "best_fit")) == 3  # 6 | 6 | 5 5


def test_documents_of_many_lengths_fill_their_rows(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    lengths = torch.empty(2000).log_normal_(3.5, 1.0, generator=draw).long().clamp(2, 2000).tolist()
    windows = Windows(written(tmp_path, [(length, "a") for length in lengths], 10**9), 127, "best_fit")
    alone = Windows(windows.dataset, 127, "one_document")
    print(f"filled: best fit {windows.filled_fraction():.4f}, one document {alone.filled_fraction():.4f}")
    assert windows.filled_fraction() > 0.97 > 0.6 > alone.filled_fraction()


@quick
@given(sizes=documents, context=contexts, shard_size=shard_sizes, packing=st.sampled_from(["cut", "best_fit"]))
def test_the_rows_of_a_group_are_those_of_a_data_set_of_its_documents(
    tmp_path: Path, sizes: list[tuple[int, str]], context: int, shard_size: int, packing: Packing
) -> None:
    sizes = [*sizes, (2, "a"), (3, "b")]
    windows = Windows(written(tmp_path, sizes, shard_size), context, packing, ["b", "a"])
    owner, first = owners(sizes), 0
    for group, size in windows.sizes().items():
        batch = windows.gather(torch.arange(first, first + size.rows))
        first += size.rows
        of_group = {token for token, of in enumerate(owner) if token and sizes[of][1] == group}
        assert set(batch["tokens"].flatten().tolist()) - {0} <= of_group
        assert size.documents == sum(name == group for _, name in sizes)
        if shard_size == 10**9:
            lengths = [(length, group) for length, name in sizes if name == group]
            alone = Windows(written(tmp_path, lengths, shard_size), context, packing)
            expected = alone.gather(torch.arange(len(alone)))
            assert batch["segment"].equal(expected["segment"])
            assert batch["position"].equal(expected["position"])


def test_a_group_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    windows = Windows(written(tmp_path, [(5, "a"), (5, "b")], 10**9), 4, "cut", ["a", "c"])
    with pytest.raises(ConfigError, match="nothing to predict in the group 'c'") as caught:
        windows.sizes()
    assert caught.value.allowed == "'a', 'b'"
