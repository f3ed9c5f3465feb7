"""Rows by machine code are those by torch, to the bit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation_core.data.loading import fused
from foundation_core.data.loading.loader import Loader
from foundation_core.data.loading.mixture import Mixture, Phase
from foundation_core.data.loading.packing import COMPILED_FROM_TOKENS, Windows
from foundation_core.data.loading.pieces import best_fit, fitted_rows
from foundation_core.data.shards.dataset import ShardDataset, ShardWriter
from foundation_core.data.units.work import TOKENS
from foundation_core.specs.loading import Packing

PACKINGS = st.sampled_from(["cut", "best_fit", "one_document"])
quick = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder: Path, sizes: list[tuple[int, str]], shard_size: int) -> ShardDataset:
    """Documents of those lengths and groups whose tokens are all different."""
    folder = folder / str(len(list(folder.iterdir())))
    draw = torch.randperm(sum(size for size, _ in sizes), generator=torch.Generator().manual_seed(0)).tolist()
    tokens = [[draw.pop() for _ in range(size)] for size, _ in sizes]
    names = [str(number) for number in range(len(sizes))]
    rows = pa.table({"document": names, "group": [group for _, group in sizes], "tokens": tokens}, schema=TOKENS)
    with ShardWriter(folder, TOKENS, source={}, shard_size=shard_size) as writer:
        writer.write(rows)
    return ShardDataset(folder)


def same(first: list[dict[str, torch.Tensor]], second: list[dict[str, torch.Tensor]]) -> bool:
    """Whether all tensors of some batches are equal, types too."""
    return len(first) == len(second) and all(
        one.keys() == other.keys()
        and all(one[name].dtype == other[name].dtype and one[name].equal(other[name]) for name in one)
        for one, other in zip(first, second, strict=True)
    )


@quick
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.sampled_from("ab")), max_size=25),
    context=st.integers(1, 12),
    shard_size=st.sampled_from([10, 60, 10**9]),
    packing=PACKINGS,
    groups=st.sampled_from([None, ["a"], ["b", "a"]]),
    world=st.integers(1, 4),
    weights=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_every_batch_is_that_of_torch(
    tmp_path: Path,
    sizes: list[tuple[int, str]],
    context: int,
    shard_size: int,
    packing: Packing,
    groups: list[str] | None,
    world: int,
    weights: tuple[int, int],
) -> None:
    dataset = written(tmp_path, [*sizes, (2, "a"), (3, "b")], shard_size)
    ways = [Windows(dataset, context, packing, groups, compiled) for compiled in (True, False)]
    assert ways[0].sizes() == ways[1].sizes()
    assert ways[0].filled_fraction() == ways[1].filled_fraction()
    rows = {str(group): size.rows for group, size in ways[0].sizes().items()}
    order = Mixture(rows, [Phase(0, weights[: len(rows)])], 1)
    for rank in range(world):
        loaders = [Loader(windows, order, 7, 3, rank, world) for windows in ways]
        for step in (0, 1, 5):
            assert same(*(loader.micro_batches(step) for loader in loaders))
    if len(ways[0]) > 1:  # the negative control: other rows are told apart
        first, other = (ways[number].gather(torch.tensor([number])) for number in (0, 1))
        assert not same([first], [other])


@quick
@given(sizes=st.lists(st.integers(2, 70), max_size=80), capacity=st.integers(70, 140), first=st.integers(0, 3))
def test_best_fit_is_that_of_python(sizes: list[int], capacity: int, first: int) -> None:
    pieces = torch.tensor(sizes, dtype=torch.int64)
    (found, following), (expected, last) = (best_fit(pieces, capacity, first, code) for code in (fused, None))
    assert found.equal(expected)
    assert following == last == first + fitted_rows(torch.bincount(pieces, minlength=capacity + 1).tolist(), capacity)


def test_rows_that_are_not_there_are_refused_before_memory_is_read(
    tmp_path: Path, write_tokens: Callable[..., ShardDataset]
) -> None:
    windows = Windows(write_tokens(tmp_path / "set", [[1, 2, 3]] * 5), 4, compiled=True)
    assert windows.gather(torch.tensor([], dtype=torch.int64))["tokens"].shape == (0, 5)
    for row in (-1, len(windows)):
        with pytest.raises(IndexError, match=f"rows {row} to {row} of {len(windows)}"):
            windows.gather(torch.tensor([row]))


IMPORTS = """
import sys
from pathlib import Path
import torch
from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import ShardDataset
before = "numba" in sys.modules
for compiled in (None, True):
    windows = Windows(ShardDataset(Path(sys.argv[1])), 4, compiled=compiled)
    built = "numba" in sys.modules
    windows.gather(torch.tensor([0]))
    print(before, built, "numba" in sys.modules)
"""


def test_numba_is_imported_for_large_data_sets_alone_and_not_before_the_first_row(
    tmp_path: Path, write_tokens: Callable[..., ShardDataset]
) -> None:
    assert write_tokens(tmp_path / "set", [[1, 2, 3]]).tokens < COMPILED_FROM_TOKENS
    command = [sys.executable, "-c", IMPORTS, str(tmp_path / "set")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False", "False", "False", "False", "True"]
