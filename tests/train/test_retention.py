"""Which checkpoints stay is a function of what was saved and of the policy, and a restore always finds its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foundation_core.train.retention import Retention, Saved, kept

SAVED = st.lists(
    st.builds(
        Saved,
        step=st.integers(0, 300),
        seconds=st.floats(0, 10_000),
        loss=st.none() | st.floats(0, 9),
        ephemeral=st.booleans(),
    ),
    unique_by=lambda one: one.step,
    max_size=30,
)
POLICY = st.builds(
    Retention,
    newest=st.integers(1, 4),
    best=st.integers(0, 3),
    each_minutes=st.none() | st.floats(0.5, 60),
)


@given(SAVED, POLICY)
def test_the_newest_of_all_stays(saved: list[Saved], policy: Retention) -> None:
    assert not saved or max(one.step for one in saved) in kept(saved, policy)


@given(SAVED, POLICY)
def test_the_newest_regular_ones_stay_and_the_best(saved: list[Saved], policy: Retention) -> None:
    staying, regular = kept(saved, policy), [one for one in saved if not one.ephemeral]
    assert {*sorted(one.step for one in regular)[-policy.newest :]} <= staying
    scored = [one for one in regular if one.loss is not None]
    worst = sorted(one.loss for one in scored if one.loss is not None)[: policy.best][-1:]
    assert all(one.step in staying for one in scored if worst and one.loss is not None and one.loss < worst[0])


@given(SAVED, POLICY)
def test_an_ephemeral_one_goes_as_soon_as_a_regular_one_is_later(saved: list[Saved], policy: Retention) -> None:
    last = max((one.step for one in saved if not one.ephemeral), default=-1)
    assert not any(one.ephemeral and one.step < last and one.step in kept(saved, policy) for one in saved)


@given(SAVED, POLICY)
def test_the_first_of_each_period_stays(saved: list[Saved], policy: Retention) -> None:
    if policy.each_minutes is not None:
        periods = {int(one.seconds / 60 // policy.each_minutes) for one in saved if not one.ephemeral}
        staying = [one for one in saved if one.step in kept(saved, policy)]
        assert periods <= {int(one.seconds / 60 // policy.each_minutes) for one in staying}


@given(SAVED, POLICY)
def test_no_more_stays_than_the_policy_says(saved: list[Saved], policy: Retention) -> None:
    """The control: a function that keeps everything has all properties above."""
    minutes = policy.each_minutes
    periods = 0 if minutes is None else len({int(one.seconds / 60 // minutes) for one in saved})
    assert len(kept(saved, policy)) <= 2 * policy.newest + policy.best + periods


@given(SAVED, POLICY)
def test_to_prune_twice_is_to_prune_once(saved: list[Saved], policy: Retention) -> None:
    staying = kept(saved, policy)
    assert kept([one for one in saved if one.step in staying], policy) == staying


def test_an_example() -> None:
    saved = [
        Saved(10, 60, 3.0),
        Saved(20, 120, 2.0),
        Saved(30, 180, 2.5),
        Saved(40, 240),
        Saved(45, 260, ephemeral=True),
    ]
    assert kept(saved, Retention(newest=1)) == {40, 45}
    assert kept(saved, Retention(newest=1, best=1)) == {20, 40, 45}
    assert kept(saved, Retention(newest=1, each_minutes=2)) == {10, 20, 40, 45}
    assert kept([*saved, Saved(50, 300)], Retention(newest=1, best=1)) == {20, 50}
