"""A budget of tokens or seconds ends a training cleanly, and whatever interrupts it changes nothing in that."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from foundation_core.errors import Stopped
from foundation_core.events import read_events
from foundation_core.files import read_json, write_json
from tests.support.training import Trained, Training, metrics_by_step, weights_sha256

STEPS = 12


def _from_question(number: int) -> Callable[[], bool]:
    """A stop signal that is given from the n-th question on, which is asked after the n-th step."""
    questions = itertools.count(1)
    return lambda: next(questions) >= number


def _ticking() -> Callable[[], float]:
    """A clock that moves by a second whenever it is read: once a step, once a save, once at the start."""
    seconds = itertools.count()
    return lambda: float(next(seconds))


def _said(folder: Path) -> list[str]:
    return [event["text"] for _, event in read_events(folder / "rank-0") if event["kind"] == "say"]


@pytest.fixture(scope="module")
def unlimited(token_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, dict[int, float]]:
    """A training without a budget, and the tokens that it had seen after each step."""
    folder = tmp_path_factory.mktemp("unlimited")
    trained = Training(folder, token_corpus, steps=STEPS).run()
    return trained, metrics_by_step(folder / "rank-0", "train/tokens")


Unlimited = tuple[Trained, dict[int, float]]


@pytest.mark.parametrize(
    "budget", [{"max_tokens": 10**9}, {"max_seconds": 1e9}, {"max_tokens": 10**9, "max_seconds": 1e9}]
)
def test_a_budget_that_is_not_reached_changes_nothing(
    token_corpus: Path, tmp_path: Path, unlimited: Unlimited, budget: dict[str, int]
) -> None:
    trained = Training(tmp_path, token_corpus, steps=STEPS, **budget).run()
    assert trained.losses == unlimited[0].losses
    assert trained.validations == unlimited[0].validations
    assert weights_sha256(trained.weights) == weights_sha256(unlimited[0].weights)
    assert trained.progress.ended_by == unlimited[0].progress.ended_by == ""


@pytest.mark.parametrize("step", [1, 4, 6, 10])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_it_ends_after_the_step_that_reaches_the_tokens_validated_and_saved(
    token_corpus: Path, tmp_path: Path, unlimited: Unlimited, step: int, more: int
) -> None:
    """A token less than a step brings, or just as many, ends there; a token more takes one step more."""
    whole, tokens = unlimited
    trained = Training(tmp_path, token_corpus, steps=STEPS, max_tokens=int(tokens[step]) + more).run()
    last = step + (more > 0)
    assert trained.progress.step == last
    assert trained.losses == {n: loss for n, loss in whole.losses.items() if n <= last}, (
        "the schedule is that of `steps`"
    )
    assert max(trained.validations) == last
    assert (tmp_path / "checkpoints" / f"step-{last:08d}" / "manifest.json").exists()
    assert trained.progress.best_step in trained.best
    assert trained.progress.ended_by == "max_tokens"
    assert _said(tmp_path) == [f"max_tokens={int(tokens[step]) + more} is used up: ended after step {last} of {STEPS}"]


def test_a_budget_that_the_last_step_reaches_ended_nothing(
    token_corpus: Path, tmp_path: Path, unlimited: Unlimited
) -> None:
    trained = Training(tmp_path, token_corpus, steps=STEPS, max_tokens=int(unlimited[1][STEPS])).run()
    assert (trained.progress.step, trained.progress.ended_by) == (STEPS, "")
    assert _said(tmp_path) == []


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_an_interrupted_training_ends_where_its_tokens_end_an_uninterrupted_one(
    token_corpus: Path, tmp_path: Path, unlimited: Unlimited, stop: int
) -> None:
    budget = int(unlimited[1][7])
    whole = Training(tmp_path / "whole", token_corpus, steps=STEPS, max_tokens=budget).run()
    training = Training(tmp_path / "again", token_corpus, steps=STEPS, max_tokens=budget)
    with pytest.raises(Stopped, match=f"after step {stop} of {STEPS}"):
        training.run(_from_question(stop))
    again = training.run()
    assert (again.progress.step, again.progress.ended_by) == (7, "max_tokens")
    assert again.losses == whole.losses
    assert again.validations == whole.validations
    assert weights_sha256(again.weights) == weights_sha256(whole.weights)


def test_a_stop_at_the_step_that_spends_the_budget_is_no_stop(
    token_corpus: Path, tmp_path: Path, unlimited: Unlimited
) -> None:
    trained = Training(tmp_path, token_corpus, steps=STEPS, max_tokens=int(unlimited[1][4])).run(_from_question(4))
    assert (trained.progress.step, trained.progress.ended_by) == (4, "max_tokens")


def test_a_training_that_a_budget_ended_does_nothing_a_second_time(
    token_corpus: Path, tmp_path: Path, unlimited: Unlimited
) -> None:
    training = Training(tmp_path, token_corpus, steps=STEPS, max_tokens=int(unlimited[1][4]))
    once, again = training.run(), training.run()
    assert again.progress.step_seconds == []
    assert (again.progress.step, again.progress.ended_by) == (4, "max_tokens")
    assert weights_sha256(again.weights) == weights_sha256(once.weights)


def test_a_larger_budget_goes_on_from_there(token_corpus: Path, tmp_path: Path, unlimited: Unlimited) -> None:
    training = Training(tmp_path, token_corpus, steps=STEPS, max_tokens=int(unlimited[1][4]))
    training.run()
    training.max_tokens = None
    again = training.run()
    assert again.progress.step == STEPS
    assert len(again.progress.step_seconds) == STEPS - 4
    assert weights_sha256(again.weights) == weights_sha256(unlimited[0].weights)


@pytest.mark.parametrize(("max_seconds", "last"), [(0.5, 1), (4, 4), (4.5, 5), (7, 6)])
def test_seconds_are_those_of_steps_and_saves(
    token_corpus: Path, tmp_path: Path, max_seconds: float, last: int
) -> None:
    """The save of step 5 takes the sixth second."""
    training = Training(tmp_path, token_corpus, steps=STEPS, max_seconds=max_seconds, clock=_ticking())
    trained = training.run()
    assert (trained.progress.step, trained.progress.ended_by) == (last, "max_seconds")
    assert max(trained.validations) == last
    assert trained.progress.best_step in trained.best


def test_the_seconds_of_earlier_tries_count(token_corpus: Path, tmp_path: Path) -> None:
    training = Training(tmp_path, token_corpus, steps=STEPS, max_seconds=6, clock=_ticking())
    with pytest.raises(Stopped):
        training.run(_from_question(3))  # three steps and a save
    training.clock = _ticking()
    trained = training.run()
    assert trained.progress.seconds >= 6
    assert (trained.progress.step, trained.progress.ended_by) == (5, "max_seconds")


def test_a_checkpoint_of_before_there_were_budgets_is_continued(token_corpus: Path, tmp_path: Path) -> None:
    """And its seconds are not known: the control to the test above."""
    training = Training(tmp_path, token_corpus, steps=STEPS, max_seconds=6, clock=_ticking())
    with pytest.raises(Stopped):
        training.run(_from_question(3))
    (manifest,) = tmp_path.glob("checkpoints/*/manifest.json")
    body = read_json(manifest)
    del body["state"]["seconds"], body["state"]["ended_by"]
    write_json(manifest, body)
    training.clock = _ticking()
    assert training.run().progress.step == 8, "steps 4 to 8, and the save of step 5"
