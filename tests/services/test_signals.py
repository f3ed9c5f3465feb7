"""Signals and kills in a training, each at the process that gets it: what was saved, how it ends, how it goes on."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.tracking import MlflowClient

from foundation_core.events import read_events
from foundation_core.store import load_result
from tests.support.memory import starving_group
from tests.support.workplace import Workplace, make_workplace

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(1200)]

STEPS = 1200
FIELDS = (
    *("--pretrain.steps", str(STEPS), "--pretrain.engine", "torch", "--pretrain.workers", "1"),
    *("--pretrain.checkpoint_every_steps", "1000", "--pretrain.validate_every_steps", "600"),
)
COMMAND, JOB, WORKER = "bin/foundation", "-m cluster.job /", "RayTrainWorker"


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, miniature_corpus: Path) -> Workplace:
    """A workplace whose corpus is there."""
    place = make_workplace(tmp_path_factory.mktemp("ingested"), miniature_corpus)
    ended = place.run("ingest", str(place.recipe))
    assert ended.status == 0, ended.output
    return place


@pytest.fixture
def place(ingested: Workplace, tmp_path: Path) -> Workplace:
    """A copy of it; MLflow starts anew."""
    shutil.copytree(ingested.home / "results", tmp_path / "home" / "results")
    return Workplace(tmp_path / "home", ingested.recipe)


def _started(place: Workplace) -> tuple[Any, Path]:
    """A training that has done some steps, and its folder."""
    command, deadline = place.start("pretrain", str(place.recipe), *FIELDS), time.monotonic() + 600
    while time.monotonic() < deadline:
        for path in (place.home / "results" / "pretrain").glob("*/events.jsonl"):
            if not (path.parent / "result.json").exists() and _newest_step(path.parent) >= 20:
                return command, path.parent
        time.sleep(0.05)
    raise AssertionError("the training did not begin")


def _newest_step(folder: Path) -> int:
    steps = [event["done"] for event in _of(folder, "progress") if event["unit"] == "steps"]
    return max(steps, default=0)


def _of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for _, event in read_events(folder) if event["kind"] == kind]


def _process(place: Workplace, words: str) -> psutil.Process:
    lines = {process: " ".join(process.cmdline()) for process in place.processes()}
    return next(process for process, line in lines.items() if words in line and "cluster.guard" not in line)


@pytest.mark.parametrize(
    ("victim", "number", "status"),
    [
        (COMMAND, signal.SIGUSR2, 75),
        (COMMAND, signal.SIGTERM, 130),
        (JOB, signal.SIGUSR2, 75),
        (JOB, signal.SIGTERM, 130),
        (JOB, signal.SIGINT, 130),
    ],
)
def test_a_signal_to_the_command_or_to_the_job_saves_and_ends_with_its_status(
    victim: str, number: signal.Signals, status: int, place: Workplace
) -> None:
    command, folder = _started(place)
    _process(place, victim).send_signal(number)
    output, _ = command.communicate(timeout=600)
    assert command.returncode == status, output
    last = _of(folder, "end")[-1]
    assert last["status"] == "stopped"
    saved = _newest_step(folder)
    assert [path.name for path in (folder / "checkpoints").glob("step-*")] == [f"step-{saved:08d}"]
    assert _of(folder, "failure") == [], "who is asked to leave did not fail"


@pytest.mark.parametrize(
    ("failure", "act"),
    [
        ("preempted", lambda process: process.send_signal(signal.SIGTERM)),
        ("killed_worker", lambda process: process.kill()),
        ("host_memory", None),
    ],
)
def test_a_worker_that_goes_is_told_by_its_class_and_the_job_goes_on(
    failure: str, act: Callable[[psutil.Process], None] | None, place: Workplace
) -> None:
    command, folder = _started(place)
    worker = _process(place, WORKER)
    if act is not None:
        act(worker)
        output, _ = command.communicate(timeout=600)
    else:
        with starving_group(limit_bytes=0) as group:
            group.write_text(str(worker.pid))
            output, _ = command.communicate(timeout=600)
    assert command.returncode == 0, output
    assert load_result(folder).summary["steps"] == STEPS
    (failed,), (recovered,) = _of(folder, "failure"), _of(folder, "recovered")
    assert (failed["failure"], recovered["failure"]) == (failure, failure), failed
    assert f"{failure}, step" in output
    firsts = [event["step"] for event in _of(folder, "metrics") if "train/loss_nats" in event["values"]]
    again = [later for earlier, later in pairwise(firsts) if later <= earlier]
    assert bool(again) == (failure != "preempted"), "who had notice saved first"
    client, run = MlflowClient(f"sqlite:///{place.home / 'mlflow.db'}"), load_result(folder).ids["mlflow_run"]
    logged = client.get_run(run).data
    assert logged.metrics[f"failures/{failure}"] == 1
    assert logged.metrics[f"recovery/{failure}_seconds"] == recovered["seconds"]
    assert logged.tags[f"failure.{failure}"].startswith(f"{failure}, step")
