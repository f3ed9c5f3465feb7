"""Sources in exact proportions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.data.loading.mixture import Mixture, Phase
from foundation_core.specs.loading import PARTS, parts_of

weights = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def mixture(parts: list[int], *phases: Phase, seed: int = 0) -> Mixture:
    return Mixture(
        {f"source {number}": 7 + 3 * number for number in range(len(parts))}, [Phase(0, tuple(parts)), *phases], seed
    )


def sources(order: Mixture, start: int, count: int, size: int) -> torch.Tensor:
    """The source of each sample, one column a source."""
    firsts = torch.tensor([7 + 3 * number for number in range(size)]).cumsum(0)
    found = torch.searchsorted(firsts, order.take(start, count), right=True)
    return torch.nn.functional.one_hot(found, size)


@given(parts=weights)
def test_in_every_window_each_source_is_within_two_samples_of_its_weight(parts: list[int]) -> None:
    samples = 2 * sum(parts) + 5
    came = sources(mixture(parts), 0, samples, len(parts)).cumsum(0)
    due = torch.arange(1, samples + 1)[:, None] * torch.tensor(parts) / sum(parts)
    off = torch.cat([torch.zeros(1, len(parts)), came - due])
    assert off.abs().max() < 1
    assert (off.max(0).values - off.min(0).values).max() < 2  # between any two places
    assert mixture(parts).counts(samples).equal(came[-1])


def test_drawn_sources_are_not_as_exact() -> None:
    """Negative control."""
    drawn = torch.multinomial(
        torch.tensor([3.0, 1.0]), 400, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    off = (drawn == 0).long().cumsum(0) - torch.arange(1, 401) * 0.75
    assert off.max() - off.min() > 2


@given(parts=weights, start=st.integers(0, 90), count=st.integers(0, 90), change=st.integers(1, 80))
def test_the_nth_sample_does_not_depend_on_what_was_taken_before(
    parts: list[int], start: int, count: int, change: int
) -> None:
    order = mixture(parts, Phase(change, tuple(reversed(parts))), Phase(change + 9, (1,) * len(parts)))
    assert order.take(start, count).equal(order.take(0, start + count)[start:])


def test_each_source_is_read_to_its_end_before_it_comes_again_whatever_the_weights_become() -> None:
    order = mixture([3, 1], Phase(11, (1, 5)))
    taken = order.take(0, 200)
    for first, size in ((0, 7), (7, 10)):
        mine = taken[(taken >= first) & (taken < first + size)] - first
        for epoch in mine[: len(mine) // size * size].view(-1, size):
            assert epoch.sort().values.equal(torch.arange(size))
    assert int((taken[:11] < 7).sum()) in (8, 9)  # three of four
    assert int((taken[11:71] < 7).sum()) == 10  # one of six


def test_sources_have_orders_of_their_own_that_stay_when_others_come() -> None:
    alone, beside = mixture([1]).take(0, 21), mixture([1, 2]).take(0, 63)
    assert beside[beside < 7].equal(alone)
    assert not mixture([1], seed=1).take(0, 21).equal(alone)


@pytest.mark.parametrize("weights", [(1.0,), (0.7, 0.2, 0.1), (1.0, 1.0, 1.0), (5e-5, 1.0), (3.0, 8.0, 0.001)])
def test_parts_are_the_weights_to_half_a_part_or_so(weights: tuple[float, ...]) -> None:
    parts = parts_of(weights)
    assert sum(parts) == PARTS
    assert all(abs(part - weight / sum(weights) * PARTS) < 1 for part, weight in zip(parts, weights, strict=True))
