"""What was killed comes to a true end by itself, within a minute, and nothing of it is left behind."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.leases import is_held
from foundation_core.store import load_result
from foundation_core.tracking.open_runs import open_runs
from tests.support.stack import RunningStack

pytestmark = [pytest.mark.services, pytest.mark.timeout(600), pytest.mark.slow]

SETTLED_SECONDS = 60.0
STEPS = "--pretrain.checkpoint_every_steps 20 --pretrain.validate_every_steps 1000"


def test_a_flow_that_was_killed_leaves_no_job_no_lease_and_no_open_run(stack: RunningStack) -> None:
    run_id, folder = _training(stack, steps=5000)
    _flow_process(stack, run_id).send_signal(signal.SIGKILL)
    killed = time.monotonic()
    stack.wait_for(run_id, lambda run: run["state"]["type"] in ("CRASHED", "FAILED"), seconds=SETTLED_SECONDS)
    _until(lambda: not _workers(stack), killed + SETTLED_SECONDS, "workers went on")
    _until(lambda: not is_held(folder), killed + SETTLED_SECONDS, "the lease was held")
    _until(lambda: not _open(stack, folder), killed + SETTLED_SECONDS, "MLflow had open runs")
    assert list((folder / "checkpoints").glob("*")), "the job saved before it left"
    assert not (folder / "result.json").exists()

    again = stack.start("pretrain", recipe="miniature", steps=5000, others=f"{STEPS} --pretrain.workers 2")
    _until(
        lambda: "continuing from the checkpoint" in (folder / "events.jsonl").read_text(), time.monotonic() + 120, ""
    )
    stack.ask("POST", f"/flow_runs/{again}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
    stack.wait_for(again, lambda run: run["state"]["type"] == "CANCELLED", seconds=90)


def test_a_run_whose_runner_was_killed_goes_on_after_up_under_the_same_id(stack: RunningStack) -> None:
    run_id, folder = _training(stack, steps=600)
    guard = psutil.Process(stack.states()["runner"]["pid"])
    guard.children()[0].send_signal(signal.SIGKILL)
    guard.wait(90)
    mended = stack.place.run("up")
    assert mended.status == 0, mended.output
    ended = stack.wait_for(run_id, lambda run: run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED"), seconds=240)
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    result = load_result(folder)
    assert result.summary["steps"] == 600
    assert [event for event in _events(folder) if "continuing from the checkpoint" in event.get("text", "")]
    assert not _open(stack, folder)


def _training(stack: RunningStack, steps: int) -> tuple[str, Path]:
    """A run of that many steps whose training is well under way, and its folder."""
    run_id = stack.start("pretrain", recipe="miniature", steps=steps, others=STEPS)
    folders = stack.place.home / "results" / "pretrain"
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        for path in folders.glob("*/job.json"):
            if json.loads(path.read_text())["spec"]["steps"] == steps and _step(path.parent) >= 25:
                return run_id, path.parent
        time.sleep(0.2)
    raise AssertionError(f"the training did not begin: {stack.run(run_id)['state']}")


def _events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def _step(folder: Path) -> int:
    if not (folder / "events.jsonl").exists():
        return 0
    return max((event["done"] for event in _events(folder) if event["kind"] == "progress"), default=0)


def _flow_process(stack: RunningStack, run_id: str) -> psutil.Process:
    """The process that executes a flow run: it holds the run's lease."""
    lease = json.loads((stack.place.home / "runs" / run_id / "lease.json").read_text())
    return psutil.Process(lease["pid"])


def _workers(stack: RunningStack) -> list[psutil.Process]:
    return [process for process in stack.place.processes() if "RayTrainWorker" in " ".join(process.cmdline())]


def _open(stack: RunningStack, folder: Path) -> list[str]:
    key = json.loads((folder / "job.json").read_text())["key"]["digest"]
    return [run.run_id for run in open_runs(stack.url("mlflow")) if run.key == key or run.stage == "pipeline"]


def _until(holds: Callable[[], bool], deadline: float, words: str) -> None:
    while not holds():
        assert time.monotonic() < deadline, words
        time.sleep(0.3)
