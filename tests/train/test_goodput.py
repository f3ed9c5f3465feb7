"""Each second of a training has one cause: the account of any log adds up, and says what was lost and to what."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.events import read_events
from foundation_core.train.goodput import SAVE_SECONDS, STEP_SECONDS, TOKENS, VALIDATION_SECONDS, Goodput, account
from tests.support.training import Training

EXACT = 1e-6
TOKENS_A_STEP = 100


@dataclass
class Script:
    """Writes the log of a made-up training beside the account that it should have."""

    now: float = 1000.0
    events: list[dict[str, Any]] = field(default_factory=list)

    def says(self, kind: str, **fields: Any) -> None:
        """An event, now."""
        self.events.append({"time": self.now, "kind": kind, **fields})

    def passes(self, seconds: float) -> None:
        """Time in which nothing is said."""
        self.now += seconds

    def step(self, number: int, seconds: float = 1.0) -> None:
        """A step, and what is said of it."""
        self.passes(seconds)
        values = {"train/loss_nats": 1.0, STEP_SECONDS: seconds, TOKENS: number * TOKENS_A_STEP}
        self.says("metrics", values=values, step=number)
        self.says("progress", done=number, total=99, unit="steps", note="")

    def part(self, name: str, seconds: float) -> None:
        """A validation or a save."""
        self.passes(seconds)
        self.says("metrics", values={name: seconds}, step=1)


def _undisturbed(steps: int = 6) -> Script:
    script = Script()
    script.says("start", key="k")
    script.passes(5.0)
    for number in range(1, steps + 1):
        script.step(number)
        if number % 3 == 0:
            script.part(VALIDATION_SECONDS, 0.5)
            script.part(SAVE_SECONDS, 0.25)
    script.passes(2.0)
    script.says("end", status="done")
    return script


def _wall(script: Script) -> float:
    return float(script.events[-1]["time"] - script.events[0]["time"])


def _assert_lost(found: Goodput, **causes: float) -> None:
    assert found.lost_seconds == pytest.approx({**dict.fromkeys(found.lost_seconds, 0.0), **causes}, abs=EXACT)


def test_an_undisturbed_training_is_its_steps_and_what_stands_around_them() -> None:
    script = _undisturbed()
    found = account(script.events)
    assert (found.steps, found.repeated_steps, found.repeated_tokens, found.restarts) == (6, 0, 0, 0)
    assert found.useful_seconds == pytest.approx(6.0)
    _assert_lost(found, start=5.0, validation=1.0, save=0.5, other=2.0)
    assert found.fraction == pytest.approx(6.0 / 14.5)


def test_steps_that_are_done_again_count_once_by_their_last_time() -> None:
    script = Script()
    script.says("start", key="k")
    script.passes(5.0)
    for number, seconds in [(1, 1.0), (2, 1.0), (3, 2.0), (4, 3.0)]:
        script.step(number, seconds)
    script.passes(15.0)  # what it takes until somebody notices
    script.says("failure", failure="killed_worker", step=4)
    script.passes(1.0)
    script.says("attempt", number=1)
    script.passes(7.0)
    for number in (3, 4, 5):
        script.step(number)
    script.says("end", status="done")
    found = account(script.events)
    assert (found.steps, found.repeated_steps, found.repeated_tokens) == (5, 2, 2 * TOKENS_A_STEP)
    assert (found.restarts, found.failures) == (1, {"killed_worker": 1})
    assert found.useful_seconds == pytest.approx(5.0)
    _assert_lost(found, start=12.0, failure=16.0, repeated=5.0)


def test_time_in_which_nobody_was_at_work_is_told_apart_from_an_attempt_that_died() -> None:
    script = Script()
    script.says("start", key="k")
    script.step(1)
    script.passes(3.0)
    script.says("say", text="the last sign of a driver that was killed")
    script.passes(3600.0)
    script.says("start", key="k")
    script.passes(4.0)
    script.step(2)
    script.says("end", status="stopped")
    script.passes(60.0)
    script.says("start", key="k")
    script.says("end", status="done")
    found = account(script.events)
    _assert_lost(found, failure=3.0, away=3660.0, start=4.0)
    assert found.restarts == 2


def test_a_step_that_is_done_again_at_once_is_useful_but_for_its_first_try() -> None:
    script = Script()
    script.says("start", key="k")
    script.step(1)
    script.passes(0.75)
    script.says("failure", failure="transient_nan", step=2)
    script.passes(1.0)
    script.says("recovered", failure="transient_nan", step=2, seconds=1.0)
    values = {STEP_SECONDS: 1.75, TOKENS: 2 * TOKENS_A_STEP}
    script.says("metrics", values=values, step=2)
    found = account(script.events)
    assert found.lost_seconds["failure"] == pytest.approx(0.75)
    assert found.useful_seconds == pytest.approx(2.0), "the second try is of use"
    assert found.repeated_steps == 0


def test_a_failure_that_costs_no_attempt_costs_no_second() -> None:
    plain, told = _undisturbed(), _undisturbed()
    told.events.insert(8, {**told.events[7], "kind": "failure", "failure": "straggler"})
    with_it, without = account(told.events), account(plain.events)
    assert with_it.failures == {"straggler": 1}
    assert (with_it.useful_seconds, with_it.lost_seconds) == (without.useful_seconds, without.lost_seconds)


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_the_parts_of_any_log_add_up_to_its_wall_time(seed: int, attempts: int) -> None:
    """Attempts of all lengths that end in every way; none of the parts is negative."""
    script, draw = Script(), random.Random(seed)
    done, saved = 0, 0
    for attempt in range(attempts):
        if attempt == 0 or draw.random() < 0.5:
            script.says("start", key="k")
        else:
            script.says("attempt", number=attempt)
        script.passes(draw.uniform(0, 9))
        done = saved
        for _ in range(draw.randrange(9)):
            done += 1
            script.step(done, draw.uniform(0, 3))
            if draw.random() < 0.3:
                script.part(draw.choice([SAVE_SECONDS, VALIDATION_SECONDS]), draw.uniform(0, 2))
                saved = done
            script.passes(draw.choice([0.0, 0.1]))
        script.passes(draw.uniform(0, 20))
        if draw.random() < 0.5:
            script.says(*draw.choice([("failure",), ("recovered",)]), failure="hang", step=done)
        if draw.random() < 0.3:
            script.says("end", status=draw.choice(["failed", "stopped", "done"]))
            script.passes(draw.uniform(0, 1000))
    script.says("say", text="the last")
    found = account(script.events)
    assert found.wall_seconds == pytest.approx(_wall(script), abs=EXACT)
    assert min(found.useful_seconds, *found.lost_seconds.values()) >= -EXACT
    steps = [event["step"] for event in script.events if STEP_SECONDS in event.get("values", {})]
    assert (found.steps, found.repeated_steps) == (len(set(steps)), len(steps) - len(set(steps)))
    assert found.repeated_tokens == TOKENS_A_STEP * found.repeated_steps


def test_a_clock_that_is_put_back_takes_no_second_twice() -> None:
    script = _undisturbed()
    for event in script.events[6:9]:
        event["time"] -= 100.0
    found = account(script.events)
    assert found.wall_seconds == pytest.approx(_wall(script))
    assert min(found.lost_seconds.values()) >= 0


def test_the_log_of_a_real_training_is_accounted_for(token_corpus: Path, tmp_path: Path) -> None:
    training = Training(tmp_path, token_corpus, steps=4, checkpoint_every_steps=2, validate_every_steps=2)
    training.run()
    events = [event for _, event in read_events(tmp_path / "rank-0")]
    found = account(events)
    assert (found.steps, found.repeated_steps) == (4, 0)
    assert found.lost_seconds["validation"] > 0
    assert found.lost_seconds["save"] > 0
    first = events[0]["values"][STEP_SECONDS]
    assert found.wall_seconds == pytest.approx(events[-1]["time"] - events[0]["time"] + first, abs=EXACT)
