"""Ranks that hang leave by themselves, with the stacks of each and the name of the one that is mute; slow ones stay."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from foundation_core.events import EventLog, read_events
from foundation_core.specs.watch import WatchSpec
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.watch import Unwatched
from foundation_core.train.watchdog import HUNG_STATUS, Watchdog
from tests.support.training import Training
from tests.train.watched_rank import FAULTY_STEP

REPOSITORY = Path(__file__).parents[2]
WORLD = 2


@contextmanager
def _ranks(folder: Path, fault: str, faulty_rank: int = 1) -> Iterator[list[subprocess.Popen[bytes]]]:
    command = [sys.executable, "-m", "tests.train.watched_rank", str(folder)]
    ranks = [
        subprocess.Popen([*command, str(rank), str(WORLD), fault, str(faulty_rank)], cwd=REPOSITORY)
        for rank in range(WORLD)
    ]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def _failures(folder: Path) -> list[dict[str, Any]]:
    return [event for _, event in read_events(folder) if event["kind"] == "failure"]


def _stacks(folder: Path, rank: int) -> str:
    return (folder / "stacks" / "first" / f"rank-{rank}.txt").read_text()


def test_a_rank_that_waits_for_one_that_was_stopped_leaves_and_names_it(tmp_path: Path) -> None:
    with _ranks(tmp_path, "stopped") as (waiting, stopped):
        assert waiting.wait(60) == HUNG_STATUS
        assert stopped.poll() is None, "nobody but its parent can end a process that was stopped"
        stopped.send_signal(signal.SIGKILL)
    (failure,) = _failures(tmp_path)
    assert (failure["failure"], failure["rank"], failure["phase"]) == ("hang", 0, "step")
    assert (failure["step"], failure["mute"]) == (FAULTY_STEP, [1])
    assert "no word from 1" in failure["what"]
    assert list(failure["words"]) == ["0"]
    assert "all_reduce" in _stacks(tmp_path, 0), "the stacks show the collective call that it waits in"


def test_all_ranks_leave_with_their_stacks_when_one_computes_for_ever(tmp_path: Path) -> None:
    with _ranks(tmp_path, "loop") as ranks:
        assert [rank.wait(60) for rank in ranks] == [HUNG_STATUS] * WORLD
    (failure,) = _failures(tmp_path)
    assert (failure["mute"], sorted(failure["words"])) == ([], ["0", "1"])
    assert "all_reduce" in _stacks(tmp_path, 0)
    assert "misbehave" in _stacks(tmp_path, 1)


def test_a_call_that_keeps_pythons_lock_is_ended_too(tmp_path: Path) -> None:
    with _ranks(tmp_path, "lock") as (waiting, locked):
        assert waiting.wait(60) == HUNG_STATUS
        assert locked.wait(60) == 1, "ended by faulthandler's timer, which needs no lock"
    assert "misbehave" in _stacks(tmp_path, 1)
    assert len(_failures(tmp_path)) == 1


def test_slow_ranks_and_those_after_an_earlier_hang_are_left_alone(tmp_path: Path) -> None:
    old = tmp_path / "stacks" / "zeroth"
    old.mkdir(parents=True)
    (old / "alarm.json").write_text("{}")
    with _ranks(tmp_path, "slow") as ranks:
        assert [rank.wait(60) for rank in ranks] == [0] * WORLD
    assert list((tmp_path / "stacks").iterdir()) == [old], "nothing is left of a watch that saw no hang"
    assert _failures(tmp_path) == []


def test_patience_follows_the_median_of_what_it_waits_for(tmp_path: Path) -> None:
    spec = WatchSpec(hang_seconds=1e-9, hang_medians=3.0, first_seconds=70.0)
    watchdog = Watchdog(tmp_path, spec, 0, 1, "first")
    assert watchdog.patience_seconds("step") == 70.0, "nothing is known of the first one"
    for step in range(1, 6):
        watchdog.begins("step", step)
    assert 0 < watchdog.patience_seconds("step") < 1.0
    assert watchdog.patience_seconds("save") == 70.0, "steps say nothing of saves"
    least = Watchdog(tmp_path, spec.model_copy(update={"hang_seconds": 50.0}), 0, 1, "first")
    least.begins("step", 1)
    least.begins("step", 2)
    assert least.patience_seconds("step") == 50.0


def test_without_a_bound_nobody_watches(tmp_path: Path) -> None:
    EventLog(tmp_path)
    with Watchdog(tmp_path, WatchSpec(hang_seconds=None), 0, 1, "first") as watchdog:
        watchdog.begins("step", 1)
    assert not (tmp_path / "stacks").exists()


@pytest.mark.parametrize("field", ["hang_seconds", "first_seconds"])
def test_collective_calls_wait_longer_than_the_watchdog(field: str) -> None:
    assert WatchSpec().collective_seconds >= 1800
    assert WatchSpec(**{field: 5000.0}).collective_seconds >= 2 * 5000


def test_the_wait_for_the_store_at_the_end_has_the_time_of_a_first_one(
    token_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no median: the waits for the disk before it took milliseconds, and a store may be away for minutes."""
    words, waits = list[str](), list[tuple[str, bool]]()
    finish = Checkpoints.finish

    def finished(self: Checkpoints, *, everywhere: bool = False) -> None:
        waits.append((words[-1], everywhere))
        finish(self, everywhere=everywhere)

    monkeypatch.setattr(Unwatched, "begins", lambda self, what, step: words.append(what))
    monkeypatch.setattr(Checkpoints, "finish", finished)
    Training(tmp_path, token_corpus, steps=4, checkpoint_every_steps=1).run()
    assert {word for word, everywhere in waits if everywhere} == {"store"}
    assert words.count("store") == 1
    assert words.count("finish") > 1
