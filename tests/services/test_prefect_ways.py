"""What users of Prefect expect of any deployment: pause and resume, schedules, limits. On the forms of a real stack."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from foundation_core.store import load_result
from tests.support.stack import RunningStack, until

pytestmark = [pytest.mark.services, pytest.mark.timeout(600), pytest.mark.slow]

OTHERS = "--pretrain.checkpoint_every_steps 2000 --pretrain.validate_every_steps 2000"


def test_a_paused_run_saves_and_leaves_and_goes_on_when_it_is_resumed(stack: RunningStack) -> None:
    run_id, folder = stack.training(3000, OTHERS, at_step=20)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    as_the_page_does = {"state_details": {"pause_reschedule": True, "pause_timeout": later}}
    state = {"type": "PAUSED", "name": "Paused", **as_the_page_does}
    stack.ask("POST", f"/flow_runs/{run_id}/set_state", state=state, force=True)
    until(lambda: not stack.workers(), time.monotonic() + 30, "workers go on")
    until(lambda: not (stack.place.home / "runs" / run_id).exists(), time.monotonic() + 30, "its process goes on")
    assert stack.run(run_id)["state"]["type"] == "PAUSED"
    assert list((folder / "checkpoints").glob("*")), "the trainer saved before it left"
    assert not stack.open_runs(folder)

    stack.ask("POST", f"/flow_runs/{run_id}/resume")
    until(lambda: "continuing from the checkpoint" in (folder / "events.jsonl").read_text(), time.monotonic() + 90, "")
    stack.ask("POST", f"/flow_runs/{run_id}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
    assert stack.finish(run_id, seconds=90)["state"]["type"] == "CANCELLED"


def test_a_schedule_starts_the_form_with_its_values_also_after_the_runner_came_anew(stack: RunningStack) -> None:
    form = stack.ask("GET", "/deployments/name/ingest/ingest")["id"]
    anchor = datetime.now(UTC) - timedelta(
        seconds=3480
    )  # due in two minutes: a new runner may take one on a busy machine
    made = stack.ask_with(
        "POST",
        f"/deployments/{form}/schedules",
        [
            {
                "schedule": {"interval": 3600, "anchor_date": anchor.isoformat()},
                "active": True,
                "parameters": {"recipe": "miniature", "others": "--ingest.split.seed 77"},
            }
        ],
    )
    try:
        _new_runner(stack)
        kept = stack.ask("GET", f"/deployments/{form}")["schedules"]
        assert [schedule["id"] for schedule in kept] == [made[0]["id"]]
        until(lambda: bool(_scheduled(stack, form)), time.monotonic() + 60, "nothing was scheduled")
        (run, *_) = sorted(_scheduled(stack, form), key=lambda run: run["expected_start_time"])
        assert stack.finish(run["id"], seconds=300)["state"]["type"] == "COMPLETED"
        assert run["parameters"]["others"] == "--ingest.split.seed 77"
    finally:
        stack.ask("DELETE", f"/deployments/{form}/schedules/{made[0]['id']}")


def test_what_is_set_on_a_deployments_page_outlives_the_runner(stack: RunningStack) -> None:
    form = stack.ask("GET", "/deployments/name/sweep/sweep")["id"]
    stack.ask("PATCH", f"/deployments/{form}", concurrency_limit=3, paused=True, tags=["mine"])
    try:
        _new_runner(stack)
        kept = stack.ask("GET", f"/deployments/{form}")
        assert (kept["global_concurrency_limit"]["limit"], kept["paused"], kept["tags"]) == (3, True, ["mine"])
    finally:
        stack.ask("PATCH", f"/deployments/{form}", concurrency_limit=None, paused=False, tags=[])


def test_a_form_with_a_limit_of_one_lets_the_second_run_wait(stack: RunningStack) -> None:
    form = stack.ask("GET", "/deployments/name/pretrain/pretrain")["id"]
    stack.ask("PATCH", f"/deployments/{form}", concurrency_limit=1)
    try:
        first, _ = stack.training(3001, OTHERS, at_step=1)
        second = stack.start("pretrain", recipe="miniature", steps=20)
        stack.wait_for(second, lambda run: run["state"]["name"] == "AwaitingConcurrencySlot", seconds=60)
        stack.ask("POST", f"/flow_runs/{first}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
        assert stack.finish(first, seconds=90)["state"]["type"] == "CANCELLED"
        assert stack.finish(second, seconds=240)["state"]["type"] == "COMPLETED"
        assert stack.run(second)["start_time"] > stack.run(first)["end_time"]
    finally:
        stack.ask("PATCH", f"/deployments/{form}", concurrency_limit=None)


def test_the_same_run_started_twice_at_once_does_the_work_once(stack: RunningStack) -> None:
    both = [stack.start("pretrain", recipe="miniature", steps=222, others=OTHERS) for _ in range(2)]
    assert [stack.finish(run)["state"]["type"] for run in both] == ["COMPLETED", "COMPLETED"]
    (folder,) = [
        path.parent
        for path in (stack.place.home / "results" / "pretrain").glob("*/result.json")
        if load_result(path.parent).summary["steps"] == 222
    ]
    assert (folder / "events.jsonl").read_text().count('"kind": "start"') == 1


def _new_runner(stack: RunningStack) -> None:
    guard = psutil.Process(stack.states()["runner"]["pid"])
    guard.terminate()
    guard.wait(90)
    ended = stack.place.run("up")
    assert ended.status == 0, ended.output


def _scheduled(stack: RunningStack, form: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.ask(
        "POST",
        "/flow_runs/filter",
        flow_runs={"deployment_id": {"any_": [form]}, "state": {"name": {"any_": ["Scheduled"]}}},
    )
    return [run for run in found if run["auto_scheduled"]]
