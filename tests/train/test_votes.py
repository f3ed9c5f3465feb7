"""Ranks agree by sums: every rank hears the same of all, whoever asked."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foundation_core.objectives.base import ALONE
from foundation_core.train.votes import MOST_RANKS, agree, of_each_rank


@dataclass
class Beside:
    """One of several ranks; the votes of the others are known."""

    rank: int
    world: int
    others: Tensor

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """The sum with those of the others."""
        return value + self.others

    def gather_over_ranks(self, value: Tensor) -> Tensor:
        """Nobody asks."""
        raise AssertionError


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)), min_size=1, max_size=5), st.data())
def test_every_rank_hears_the_sum_of_each_vote(brought: list[dict[str, int]], data: st.DataObject) -> None:
    votes = [{name: float(own.get(name, 0)) for name in "abc"} for own in brought]
    expected = {name: sum(own[name] for own in votes) for name in "abc"}
    rank = data.draw(st.integers(0, len(votes) - 1))
    others = [list(own.values()) for number, own in enumerate(votes) if number != rank]
    beside = Beside(rank, len(votes), torch.tensor([[0.0] * 3, *others], dtype=torch.float64).sum(0))
    assert agree(beside, votes[rank]) == expected


def test_a_count_of_tokens_arrives_to_the_digit() -> None:
    """A month's tokens are more than float32 counts."""
    assert agree(ALONE, {"tokens": 10**12 + 1}) == {"tokens": 10**12 + 1}


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_figure_of_each_rank_stands_under_its_number(rank: int) -> None:
    beside = Beside(rank, 3, torch.zeros(3, dtype=torch.float64))
    found = agree(beside, of_each_rank(beside, "seconds", 1.5))
    assert found == {f"seconds/{number}": 1.5 if number == rank else 0.0 for number in range(3)}


def test_very_many_ranks_have_no_entries_of_their_own() -> None:
    assert of_each_rank(Beside(0, MOST_RANKS + 1, torch.zeros(0)), "seconds", 1.5) == {}
    assert len(of_each_rank(Beside(0, MOST_RANKS, torch.zeros(0)), "seconds", 1.5)) == MOST_RANKS
