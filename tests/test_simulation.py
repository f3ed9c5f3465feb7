"""The simulated training at a small size: the same code, with faults that it must see."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from benchmarks import simulation
from benchmarks.simulation import Corpus, make, rows_of, share, start, whole

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
