"""A rank that is slower than the others is named once, and when it is well again; noise names nobody."""

from __future__ import annotations

import random

import pytest
import torch

from foundation_core.train.stragglers import OwnWork, Stragglers, Verdict

FACTOR, WINDOW, APART_SECONDS = 1.5, 20, 5.0


def _judged(ranks: int, steps: int, noise: float, slow: dict[int, tuple[range, float]], seed: int = 0) -> list[Verdict]:
    """The verdicts on ranks whose seconds are noisy, and some of which are slower for a while."""
    draw, judge, verdicts = random.Random(seed), Stragglers(FACTOR, WINDOW, APART_SECONDS), []
    for step in range(steps):
        seconds = {rank: draw.lognormvariate(0, noise) for rank in range(ranks)}
        for rank, (when, factor) in slow.items():
            seconds[rank] *= factor if step in when else 1.0
        verdicts += judge.saw(seconds, at=float(step))
    return verdicts


@pytest.mark.parametrize("ranks", [2, 3, 8, 64])
def test_a_slow_rank_is_named_once_and_when_it_is_well_again(ranks: int) -> None:
    verdicts = _judged(ranks, 400, 0.1, {1: (range(50, 200), 2.0)})
    assert [(rank, slow) for rank, _, slow in verdicts] == [(1, True), (1, False)]
    assert verdicts[0].factor == pytest.approx(2.0, rel=0.3)


@pytest.mark.parametrize("seed", range(20))
def test_noise_names_nobody(seed: int) -> None:
    """Steps of which one in six takes 1.35 times as long or more, and one in a hundred twice; no rank is slower."""
    assert _judged(8, 500, 0.3, {}, seed) == []


def test_a_busy_moment_names_nobody_and_without_looks_apart_it_would() -> None:
    """Steps of a thousandth of a second, all of which a busy machine makes three times as long for two seconds."""

    def named(apart_seconds: float) -> int:
        judge, found = Stragglers(FACTOR, WINDOW, apart_seconds), 0
        for step in range(20_000):
            slow = 3.0 if 5_000 <= step < 7_000 else 1.0
            found += len(judge.saw({0: 1.0, 1: slow, 2: 1.0}, at=step / 1000))
        return found

    assert named(5.0) == 0
    assert named(0.0) == 2


def test_one_long_step_is_no_straggler() -> None:
    assert _judged(4, 200, 0.1, {2: (range(60, 63), 50.0)}) == []


def test_a_rank_at_the_bound_is_not_named_again_and_again() -> None:
    verdicts = _judged(4, 2000, 0.1, {3: (range(2000), FACTOR)})
    assert len(verdicts) <= 1


def test_one_rank_has_nobody_to_be_slower_than() -> None:
    assert _judged(1, 100, 0.1, {0: (range(50, 100), 9.0)}) == []


def test_own_work_is_the_blocks_alone() -> None:
    own = OwnWork(torch.device("cpu"))
    with own.measured():
        sum(range(200_000))
    assert own.taken_seconds() > 0
    assert own.taken_seconds() == 0.0


def test_one_method_of_a_part_is_counted_and_all_else_of_it_is_as_it_was() -> None:
    own, words = OwnWork(torch.device("cpu")), ["b", "a"]
    counted = own.counted(words, "sort")
    assert counted.index("a") == 1
    assert own.taken_seconds() == 0.0
    counted.sort(reverse=False)
    assert words == ["a", "b"]
    assert own.taken_seconds() > 0
