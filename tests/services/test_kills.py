"""SIGKILL of any part while a form's run trains: it ends, after the documented commands, with the same model."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from mlflow.tracking import MlflowClient

from cluster.leases import is_held
from foundation_core.store import load_result
from tests.support.stack import RunningStack, step_of, until

pytestmark = [pytest.mark.services, pytest.mark.timeout(600), pytest.mark.slow]

STEPS = 240
OTHERS = "--pretrain.checkpoint_every_steps 20 --pretrain.validate_every_steps 80"
OUTAGE_SECONDS = 120.0

Victim = Callable[[RunningStack, str], psutil.Process]


def _service(name: str, words: str) -> Victim:
    """The process of a service that does the work: below its guard, with words in its command line."""

    def find(stack: RunningStack, run_id: str) -> psutil.Process:
        below = psutil.Process(stack.states()[name]["pid"]).children(recursive=True)
        return next(process for process in stack.place.processes(words) if process in below)

    return find


def _marked(words: str) -> Victim:
    return lambda stack, run_id: stack.place.processes(words)[0]


def _flow(stack: RunningStack, run_id: str) -> psutil.Process:
    return psutil.Process(json.loads((stack.place.home / "runs" / run_id / "lease.json").read_text())["pid"])


VICTIMS: dict[str, tuple[Victim, int]] = {
    "prefect": (_service("prefect", "prefect server start"), 0),
    "mlflow": (_service("mlflow", "mlflow"), 0),
    "ray head": (_service("ray", "gcs_server"), 0),
    "raylet": (_service("ray", "raylet/raylet"), 0),
    "runner": (_service("runner", "flows.runner"), 0),
    "flow": (_flow, 1),
    "job": (_marked("-m cluster.job /"), 1),
    "worker": (_marked("RayTrainWorker"), 0),
}
"""Which process, and how often a person has to press *Retry* afterwards."""


@pytest.fixture(scope="module")
def uninterrupted(stack: RunningStack) -> str:
    """What the training makes if nobody disturbs it: the content hash of its result."""
    run_id, folder = stack.training(STEPS, OTHERS, at_step=1)
    ended = stack.finish(run_id)
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    content = load_result(folder).content
    shutil.rmtree(folder)
    return content


@pytest.fixture
def cleared(stack: RunningStack) -> Iterator[None]:
    """The same training starts from nothing in the next test; the services are up."""
    yield
    assert stack.place.run("up").status == 0
    for path in (stack.place.home / "results" / "pretrain").glob("*"):
        shutil.rmtree(path)


@pytest.mark.parametrize("victim", list(VICTIMS))
def test_whoever_is_killed_the_model_is_the_same(
    stack: RunningStack, uninterrupted: str, cleared: None, victim: str
) -> None:
    run_id, folder = stack.training(STEPS, OTHERS, at_step=45)
    find, retries = VICTIMS[victim]
    process = find(stack, run_id)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert _end_by_what_is_documented(stack, run_id) == retries

    result = load_result(folder)
    assert result.content == uninterrupted
    assert _logged(stack, result.ids["mlflow_run"]) == list(range(1, STEPS + 1))
    until(lambda: not stack.open_runs(folder), time.monotonic() + 60, "MLflow has open runs")
    until(lambda: not stack.workers(), time.monotonic() + 60, "workers are left")
    until(lambda: not stack.place.processes("-m cluster.job /"), time.monotonic() + 60, "a job is left")
    assert not is_held(folder)
    running = stack.ask("POST", "/flow_runs/filter", flow_runs={"state": {"type": {"any_": ["RUNNING", "PENDING"]}}})
    assert running == []


def test_training_does_not_wait_for_mlflow_and_nothing_is_lost(stack: RunningStack, cleared: None) -> None:
    others = f"{OTHERS} --pretrain.max_seconds {OUTAGE_SECONDS + 45:.0f}"
    run_id, folder = stack.training(100_000, others, at_step=20)
    guard = psutil.Process(stack.states()["mlflow"]["pid"])
    guard.send_signal(signal.SIGKILL)
    away = time.monotonic()
    before = step_of(folder)
    until(lambda: step_of(folder) > before + 100, away + 60, "the training waits for MLflow")
    while time.monotonic() < away + OUTAGE_SECONDS:  # the outage is what is tested: nothing tells when it is over
        time.sleep(1)
    during = step_of(folder)
    assert not (folder / "result.json").exists(), "it was over before MLflow came back"
    mended = stack.place.run("up")
    assert mended.status == 0, mended.output
    ended = stack.finish(run_id)
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    result = load_result(folder)
    steps = result.summary["steps"]
    assert steps > during
    assert _logged(stack, result.ids["mlflow_run"]) == list(range(1, steps + 1))


def _end_by_what_is_documented(stack: RunningStack, run_id: str) -> int:
    """`foundation up` where a service died, *Retry* on the page of a run that failed; how often that was needed."""
    retries, deadline = 0, time.monotonic() + 400
    while time.monotonic() < deadline:
        if any(row["state"] != "up" for row in stack.states().values()):
            mended = stack.place.run("up")
            assert mended.status == 0, mended.output
        state = stack.run(run_id)["state"]["type"]
        if state == "COMPLETED":
            return retries
        if state in ("FAILED", "CRASHED"):
            retries += 1
            assert retries <= 2, stack.run(run_id)["state"]["message"]
            stack.retry(run_id)
        time.sleep(1)
    raise AssertionError(f"it did not end: {stack.run(run_id)['state']}")


def _logged(stack: RunningStack, run_id: str) -> list[int]:
    history = MlflowClient(tracking_uri=stack.url("mlflow")).get_metric_history(run_id, "train/loss_nats")
    return [metric.step for metric in history]
