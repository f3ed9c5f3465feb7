"""The simulated training at a small size: the same code, with faults that it must see."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import simulated_cluster, simulation
from benchmarks.simulation import (
    BEST_FIT,
    MIXED,
    PLAIN,
    Corpus,
    Start,
    Way,
    in_time,
    make,
    rows_of,
    share,
    start,
    whole,
)
from cluster.cluster_file import load_cluster
from foundation_core.errors import SetupError
from foundation_core.specs import PretrainSpec

ARGUMENTS = argparse.Namespace(context_tokens=64, batch_rows=40, ranks=16, other_ranks=7, ranks_of_machine=4)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    make(folder, Corpus(tokens=400_000, shard_tokens=2_000))
    return folder


def test_the_ranks_together_read_the_global_batch_wherever_it_is(corpus: Path) -> None:
    for step in (0, 9, 120):
        starts = [start(corpus, rank, 16, step, ARGUMENTS) for rank in range(16)]
        assert whole(starts, step, 40)
        assert not whole(starts[:-1], step, 40)
        assert not whole([*starts[:-1], starts[0]], step, 40)


def test_a_step_is_the_same_however_it_is_reached(corpus: Path) -> None:
    at_once = start(corpus, 3, 16, 9, ARGUMENTS).digest
    assert simulation._followed(corpus, 3, 9, ARGUMENTS) == at_once
    assert simulation._followed(corpus, 3, 10, ARGUMENTS) != at_once


def test_any_number_of_ranks_reads_the_same_rows_in_the_same_order(corpus: Path) -> None:
    one, other = rows_of(corpus, (16, 7), 9, ARGUMENTS)
    assert torch.equal(one, other)
    assert len(one) == len(one.unique()) == 40
    assert not torch.equal(one, rows_of(corpus, (16, 7), 10, ARGUMENTS)[0])


def test_every_rank_makes_as_many_passes() -> None:
    assert {share(rank, 16, 40) for rank in range(16)} == {3}


def test_the_made_up_data_set_takes_hardly_any_disk(corpus: Path) -> None:
    stored = sum(path.stat().st_size for path in corpus.rglob("*.arrow") if not path.is_symlink())
    named = sum(path.stat().st_size for path in corpus.glob("*.arrow"))
    assert stored < named / 20


@pytest.mark.parametrize("way", [MIXED, BEST_FIT], ids=["mixture", "best fit"])
def test_a_mixture_and_best_fit_are_read_by_any_number_of_ranks_alike(corpus: Path, way: Way) -> None:
    one, other = rows_of(corpus, (16, 7), 3, ARGUMENTS, way)
    assert torch.equal(one, other)
    assert len(one) == len(one.unique()) == 40
    assert not torch.equal(one, rows_of(corpus, (16, 7), 4, ARGUMENTS, way)[0])
    assert whole([start(corpus, rank, 16, 3, ARGUMENTS, way) for rank in range(16)], 3, 40)


def test_a_mixture_is_another_order_of_the_rows(corpus: Path) -> None:
    assert not torch.equal(*(rows_of(corpus, (16, 7), 3, ARGUMENTS, way)[0] for way in (MIXED, PLAIN)))


def test_a_start_is_held_to_the_bar_by_the_clock_too_unless_the_machine_is_busy() -> None:
    waited = Start(0.1, 1.5, torch.empty(0), "")
    assert in_time([waited], busy=True)
    assert not in_time([waited], busy=False)
    assert not in_time([waited._replace(seconds=1.1)], busy=True)


def test_a_described_cluster_of_1024_places_is_launched_on_by_the_rules_of_a_real_one() -> None:
    cluster = load_cluster(simulated_cluster.CLUSTER)
    assert cluster.ranks == 1024
    assert [what for what, holds in simulated_cluster.room_checks(cluster) if not holds] == []
    smaller = cluster.model_copy(update={"nodes": 127})
    nodes = simulated_cluster.nodes_of(smaller)
    spec = PretrainSpec(workers=1024, batch_rows=1024, threads_per_worker=8, device="cuda")
    assert simulated_cluster.launched(nodes, spec) is SetupError  # negative control: a node less is not 1,024 places


def test_votes_of_1024_entries_tell_each_rank_and_name_the_slow_one() -> None:
    assert [what for what, holds in simulated_cluster.votes_checks(1024) if not holds] == []


def test_a_checkpoint_of_many_files_is_read_by_another_number_of_ranks(tmp_path: Path) -> None:
    fragments = simulated_cluster.state(4_000)
    simulated_cluster.saved(tmp_path, fragments, 64)
    found = simulated_cluster.read(tmp_path, fragments, 50, [0, 49])
    assert (found.faults, found.same) == (0, True)
    changed = [replace(part, values=part.values + 1) for part in fragments]
    assert not simulated_cluster.read(tmp_path, changed, 50, [0]).same  # negative control
    assert [what for what, holds in simulated_cluster.checkpoint_checks(tmp_path, 64, 50, 4_000) if not holds] == []
