"""Interrupted work goes on when the same command is run again, in the same MLflow run, and leaves nothing behind."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from mlflow.tracking import MlflowClient

from foundation_core.events import read_events
from foundation_core.store import load_result
from tests.support.workplace import Ended, Workplace

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

STEPS, MORE_STEPS = 160, 600
"""More where the job has seconds to go on before it notices that its owner was killed."""


@pytest.mark.parametrize(
    ("victim", "last_word", "status"),
    [
        ("bin/foundation", signal.SIGINT, "KILLED"),
        pytest.param("bin/foundation", signal.SIGKILL, "RUNNING", marks=pytest.mark.slow),
        pytest.param("RayTrainWorker", signal.SIGKILL, None, marks=pytest.mark.slow),  # replaced within the job
        pytest.param("-m cluster.job /", signal.SIGKILL, "FAILED", marks=pytest.mark.slow),
        pytest.param("raylet/raylet", signal.SIGKILL, "FAILED", marks=pytest.mark.slow),
        pytest.param("gcs_server", signal.SIGKILL, "FAILED", marks=pytest.mark.slow),
        pytest.param("prefect.server", signal.SIGKILL, None, marks=pytest.mark.slow),
    ],
)
def test_training_goes_on_from_its_checkpoint(
    victim: str,
    last_word: signal.Signals,
    status: str | None,
    finished: tuple[Workplace, Ended],
    copied: Callable[[], Workplace],
) -> None:
    place, last_step = copied(), STEPS if last_word == signal.SIGINT else MORE_STEPS
    often = ["--pretrain.checkpoint_every_steps", "10", "--pretrain.validate_every_steps", "80"]
    fields = ("--pretrain.steps", str(last_step), *often)
    command = place.start("pretrain", str(place.recipe), *fields)
    folder = _wait_for_step(place, 25)
    _process(place, victim).send_signal(last_word)
    command.communicate(timeout=200)
    _wait_until_nothing_runs(place)
    if status is not None:
        assert not (folder / "result.json").exists()
        assert _pretrain_runs(place) == [status]
        again = place.run("pretrain", str(place.recipe), *fields)
        assert again.status == 0, again.output
    result = load_result(folder)
    assert result.summary["steps"] == last_step
    metrics = [event for _, event in read_events(folder) if event["kind"] == "metrics"]
    steps = [event["step"] for event in metrics if "train/loss_nats" in event["values"]]
    attempts = [index for index in range(1, len(steps)) if steps[index] < steps[index - 1] - 1]
    assert max(steps) == last_step
    assert len(attempts) <= 1
    assert steps.count(1) == 1, "it began anew instead of going on"
    assert _pretrain_runs(place) == ["FINISHED"]
    client, run = _client(place), result.ids["mlflow_run"]
    logged = [metric.step for metric in client.get_metric_history(run, "train/loss_nats")]
    assert logged == list(range(1, last_step + 1))
    assert place.processes() == []


def _wait_for_step(place: Workplace, step: int) -> Path:
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        for folder in (place.home / "results" / "pretrain").glob("*"):
            if (folder / "result.json").exists():
                continue
            if any(e["kind"] == "progress" and e["done"] >= step for _, e in read_events(folder)):
                return folder
        time.sleep(0.05)
    raise AssertionError("the training did not begin")


def _process(place: Workplace, words: str) -> psutil.Process:
    """The process with those words in its command line; not its guard, which has them too."""
    lines = {process: " ".join(process.cmdline()) for process in place.processes()}
    return next(process for process, line in lines.items() if words in line and "cluster.guard" not in line)


def _wait_until_nothing_runs(place: Workplace) -> None:
    _, alive = psutil.wait_procs(place.processes(), timeout=90)
    assert alive == []


def _pretrain_runs(place: Workplace) -> list[str]:
    client = _client(place)
    experiment = client.get_experiment_by_name("foundation")
    runs = client.search_runs([experiment.experiment_id], "tags.`foundation.stage` = 'pretrain'")
    return [run.info.status for run in runs]


def _client(place: Workplace) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{place.home / 'mlflow.db'}")
