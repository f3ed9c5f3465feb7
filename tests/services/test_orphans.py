"""A command that was killed leaves a job on the cluster; without a runner, a person ends it by `stop` or `doctor`."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from foundation_core.events import read_events
from tests.support.stack import RunningStack, step_of, until

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600)]

LONG = ("--pretrain.steps", "6000", "--pretrain.checkpoint_every_steps", "3000")


@pytest.fixture
def without_runner(stack: RunningStack) -> Iterator[RunningStack]:
    """The services without the one that looks for orphans by itself."""
    runner = psutil.Process(stack.states()["runner"]["pid"])
    runner.terminate()
    runner.wait(60)
    yield stack
    assert stack.place.run("up").status == 0


def _orphan(stack: RunningStack, seed: str) -> Path:
    """The folder of a training on the cluster whose command was killed."""
    command = stack.place.start("pretrain", str(stack.place.recipe), "--pretrain.seed", seed, *LONG)
    deadline = time.monotonic() + 200
    while not (found := [f for f in _trainings(stack, seed) if step_of(f) > 2]):
        assert time.monotonic() < deadline, "the training did not begin"
        time.sleep(0.2)
    command.send_signal(signal.SIGKILL)
    command.communicate()
    return found[0]


def _trainings(stack: RunningStack, seed: str) -> list[Path]:
    jobs = (stack.place.home / "results" / "pretrain").glob("*/job.json")
    return [path.parent for path in jobs if json.loads(path.read_text())["spec"]["seed"] == int(seed)]


def _state(stack: RunningStack, folder: Path) -> str:
    """What `foundation runs` says of a stage, with MLflow's server up."""
    rows = json.loads(stack.place.run("runs", "--json").output)
    assert any(row["kind"] == "pipeline" for row in rows), "the pipelines of MLflow's server are seen too"
    return next(row["state"] for row in rows if row["key"] and folder.name.endswith(row["key"]))


def _assert_saved_and_gone(stack: RunningStack, folder: Path) -> None:
    until(lambda: not stack.workers(), time.monotonic() + 60, "workers went on")
    *_, (_, last) = read_events(folder)
    assert (last["kind"], last["status"]) == ("end", "stopped"), last
    assert list((folder / "checkpoints").glob("*"))


def test_a_job_that_nobody_follows_is_seen_as_running_and_stopped_by_hand(without_runner: RunningStack) -> None:
    folder = _orphan(without_runner, "71")
    assert _state(without_runner, folder) == "running"
    stopped = without_runner.place.run("stop", folder.name.rpartition("-")[2])
    assert stopped.status == 0, stopped.output
    assert "stopped: training stopped after step" in stopped.output
    assert _state(without_runner, folder) == "stopped"
    _assert_saved_and_gone(without_runner, folder)


def test_doctor_names_what_is_down_and_ends_what_nobody_follows(without_runner: RunningStack) -> None:
    folder = _orphan(without_runner, "72")
    seen = without_runner.place.run("doctor", "--json")
    report = json.loads(seen.output)
    assert seen.status == 1
    (runner,) = [finding for finding in report["findings"] if finding["name"] == "runner"]
    assert (runner["level"], "foundation up" in runner["fix"]) == ("problem", True)
    assert any("ended; nobody followed it" in line for line in report["reconciled"]), report["reconciled"]
    _assert_saved_and_gone(without_runner, folder)
    assert not without_runner.open_runs(folder)
