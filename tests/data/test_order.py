"""The order of samples as a function."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.data.loading.order import Order


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 100, 1000, 65_537])
def test_every_epoch_holds_every_record_once(size: int) -> None:
    for epoch in range(3):
        assert Order(size, seed=7).take(epoch * size, size).sort().values.equal(torch.arange(size))


def test_epochs_and_seeds_differ() -> None:
    first, second = Order(1000, seed=0).take(0, 2000).chunk(2)
    assert not first.equal(second)
    assert not first.equal(Order(1000, seed=1).take(0, 1000))


@given(size=st.integers(1, 50), seed=st.integers(0, 2**40), start=st.integers(0, 60), count=st.integers(0, 60))
def test_the_nth_sample_does_not_depend_on_what_was_taken_before(size: int, seed: int, start: int, count: int) -> None:
    order = Order(size, seed)
    assert order.take(start, count).equal(order.take(0, start + count)[start:])


def neighbours_correlation(order: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([order[:-1], order[1:]]).double())[0, 1].abs())


def test_neighbours_in_the_order_are_not_neighbours_in_the_data() -> None:
    size = 4096
    worst = max(neighbours_correlation(Order(size, seed).take(0, size)) for seed in range(20))
    assert worst < 0.06  # measured 0.044; chance alone reaches 4 / sqrt(4096) = 0.0625 once in 16,000 seeds
    # the negative control: a linear-congruential permutation has every record, and batches that know each other
    assert neighbours_correlation(torch.arange(size) * 37 % size) > 0.5


def test_a_record_comes_up_everywhere_in_the_epoch() -> None:
    size, epochs = 7, 500
    places = Order(size, seed=3).take(0, size * epochs).reshape(epochs, size).eq(0).long().argmax(1)
    expected = epochs / size
    chi_square = float(((torch.bincount(places, minlength=size) - expected) ** 2 / expected).sum())
    assert chi_square < 22.5  # 6 degrees of freedom: above it once in a thousand


def test_the_order_of_a_seed_is_the_same_in_every_version() -> None:
    assert Order(10, seed=0).take(0, 12).tolist() == [6, 7, 4, 8, 0, 9, 2, 3, 5, 1, 8, 9]
    assert Order(1000, seed=5).digest(3000) == "fc493c1489c5e98f759ac1f6f6c2339f107818d18810e2ec430857381cf2ed8d"
