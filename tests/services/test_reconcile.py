"""What was killed comes to a true end by itself, within a minute, and nothing of it is left behind."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.leases import is_held
from foundation_core.store import load_result
from tests.support.stack import RunningStack, until

pytestmark = [pytest.mark.services, pytest.mark.timeout(600), pytest.mark.slow]

SETTLED_SECONDS = 60.0
STEPS = "--pretrain.checkpoint_every_steps 20 --pretrain.validate_every_steps 1000"


def test_a_flow_that_was_killed_leaves_no_job_no_lease_and_no_open_run(stack: RunningStack) -> None:
    run_id, folder = stack.training(5000, STEPS, at_step=25)
    _flow_process(stack, run_id).send_signal(signal.SIGKILL)
    killed = time.monotonic()
    stack.wait_for(run_id, lambda run: run["state"]["type"] in ("CRASHED", "FAILED"), seconds=SETTLED_SECONDS)
    until(lambda: not stack.workers(), killed + SETTLED_SECONDS, "workers went on")
    until(lambda: not is_held(folder), killed + SETTLED_SECONDS, "the lease was held")
    until(lambda: not stack.open_runs(folder), killed + SETTLED_SECONDS, "MLflow had open runs")
    assert list((folder / "checkpoints").glob("*")), "the job saved before it left"
    assert not (folder / "result.json").exists()

    again = stack.start("pretrain", recipe="miniature", steps=5000, others=f"{STEPS} --pretrain.workers 2")
    until(lambda: "continuing from the checkpoint" in (folder / "events.jsonl").read_text(), time.monotonic() + 120, "")
    stack.ask("POST", f"/flow_runs/{again}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
    stack.wait_for(again, lambda run: run["state"]["type"] == "CANCELLED", seconds=90)


def test_a_run_whose_runner_was_killed_goes_on_after_up_under_the_same_id(stack: RunningStack) -> None:
    run_id, folder = stack.training(600, STEPS, at_step=25)
    guard = psutil.Process(stack.states()["runner"]["pid"])
    guard.children()[0].send_signal(signal.SIGKILL)
    guard.wait(90)
    mended = stack.place.run("up")
    assert mended.status == 0, mended.output
    ended = stack.finish(run_id)
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    result = load_result(folder)
    assert result.summary["steps"] == 600
    assert [event for event in _events(folder) if "continuing from the checkpoint" in event.get("text", "")]
    assert not stack.open_runs(folder)


def _events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def _flow_process(stack: RunningStack, run_id: str) -> psutil.Process:
    """The process that executes a flow run: it holds the run's lease."""
    lease = json.loads((stack.place.home / "runs" / run_id / "lease.json").read_text())
    return psutil.Process(lease["pid"])
