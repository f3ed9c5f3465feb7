"""`foundation up`: real services, real runs started as Prefect's pages start them, and nothing left behind."""

from __future__ import annotations

import json
import signal
import stat
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from foundation_core.store import load_result
from tests.support.stack import RunningStack
from tests.support.workplace import Workplace

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

IDLE_BYTES = 2.5e9
CANCEL_SECONDS = 30.0


def test_everything_is_up_within_its_memory_and_up_again_changes_nothing(stack: RunningStack) -> None:
    states = stack.states()
    assert {name: row["state"] for name, row in states.items()} == dict.fromkeys(
        ("prefect", "mlflow", "ray", "runner"), "up"
    )
    assert sum(row["bytes"] for row in states.values()) < IDLE_BYTES
    assert stack.place.run("up").status == 0
    assert {name: row["pid"] for name, row in stack.states().items()} == {n: row["pid"] for n, row in states.items()}


def test_ray_runs_nothing_for_those_without_its_token(stack: RunningStack) -> None:
    path = stack.place.home / "stack" / "ray-token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    jobs = f"{stack.url('ray')}/api/jobs/"
    assert httpx.get(jobs).status_code == 401
    assert httpx.get(jobs, headers={"Authorization": f"Bearer {'0' * 64}"}).status_code in (401, 403)
    assert httpx.get(jobs, headers={"Authorization": f"Bearer {path.read_text()}"}).status_code == 200


def test_every_form_asks_for_a_recipe_first_and_for_nothing_else_that_must_be_said(stack: RunningStack) -> None:
    forms = {d["name"]: d for d in stack.ask("POST", "/deployments/filter")}
    assert forms
    schemas = {
        flow: stack.ask("GET", f"/deployments/name/{flow}/{flow}")["parameter_openapi_schema"]
        for flow in ("pipeline", "sweep", "ingest", "pretrain", "finetune", "evaluate", "publish")
    }
    for schema in schemas.values():
        ordered = sorted(schema["properties"], key=lambda name: schema["properties"][name]["position"])
        assert ordered[0] == "recipe"
        assert ordered[-1] == "others"
        assert schema["required"] == ["recipe"]
        assert all(field.get("description") or "$ref" in field for field in schema["properties"].values())
        assert len(ordered) <= 8
    assert schemas["pipeline"]["definitions"]["Recipe"]["enum"] == ["miniature"]


@pytest.mark.slow
def test_a_run_from_the_form_moves_its_bar_and_links_what_it_made(stack: RunningStack) -> None:
    run_id = stack.start("pretrain", recipe="miniature", steps=120, others="--pretrain.checkpoint_every_steps 60")
    seen: set[float] = set()

    def watch(run: Any) -> bool:
        if run["state"]["type"] == "RUNNING":
            seen.update(_bar(stack, run_id))
        return run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED")

    ended = stack.wait_for(run_id, watch, seconds=240)
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    assert len({value for value in seen if 0 < value < 100}) >= 2, f"the bar stood at {seen}"
    shown = {artifact["key"]: artifact["data"] for artifact in stack.artifacts(run_id)}
    assert "| pretrain | run |" in shown["plan"]
    assert "120 steps" in shown["results"]
    result = load_result(_pretrain_folder(stack.place, 120))
    assert result.ids["mlflow_run"] in shown["pretrain-mlflow"]
    assert result.ids["ray_job"] in shown["pretrain-ray"]
    assert _mlflow_status(stack, result.ids["mlflow_run"]) == "FINISHED"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"recipe": "miniature", "others": "--pretrain.nope 1"}, "pretrain.nope: unknown field"),
        ({"recipe": "miniature", "workers": 999}, "wants 999 workers"),
    ],
)
def test_a_wrong_value_is_refused_with_the_librarys_own_words(
    stack: RunningStack, parameters: dict[str, Any], words: str
) -> None:
    run_id = stack.start("pretrain", **parameters)
    ended = stack.wait_for(run_id, lambda run: run["state"]["type"] in ("FAILED", "COMPLETED", "CRASHED"), seconds=60)
    assert ended["state"]["type"] == "FAILED"
    assert words in ended["state"]["message"]


def test_a_value_out_of_bounds_does_not_even_become_a_run(stack: RunningStack) -> None:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        stack.start("pretrain", recipe="miniature", steps=-1)
    assert refused.value.response.status_code in (409, 422)


@pytest.mark.slow
def test_cancelling_saves_stops_the_job_and_closes_the_run_as_killed(stack: RunningStack) -> None:
    run_id = stack.start("pretrain", recipe="miniature", steps=4000, others="--pretrain.checkpoint_every_steps 2000")
    stack.wait_for(run_id, lambda run: bool(_bar(stack, run_id)), seconds=180)
    start = time.monotonic()
    stack.ask("POST", f"/flow_runs/{run_id}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
    stack.wait_for(run_id, lambda run: run["state"]["type"] == "CANCELLED", seconds=90)
    assert time.monotonic() - start < CANCEL_SECONDS
    folder = _pretrain_folder(stack.place, 4000)
    assert not (folder / "result.json").exists()
    assert list((folder / "checkpoints").glob("*")), "the trainer saved before it left"
    assert not [p for p in stack.place.processes() if "RayTrainWorker" in " ".join(p.cmdline())]
    assert "KILLED" in _pretrain_statuses(stack)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["prefect", "mlflow", "ray", "runner"])
def test_status_tells_who_died_and_up_mends_it(stack: RunningStack, victim: str) -> None:
    before = stack.states()
    process = psutil.Process(before[victim]["pid"])
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert stack.states()[victim]["state"] == "died"
    assert stack.place.run("status").status == 1
    mended = stack.place.run("up")
    assert mended.status == 0, mended.output
    after = stack.states()
    assert {row["state"] for row in after.values()} == {"up"}
    assert after[victim]["url"] == before[victim]["url"]
    assert [n for n in before if before[n]["pid"] != after[n]["pid"]] == [victim]


def _bar(stack: RunningStack, run_id: str) -> list[float]:
    return [bar["data"] for bar in stack.artifacts(run_id) if bar["key"] == "pretrain-progress"]


def _pretrain_folder(place: Workplace, steps: int) -> Path:
    folders = (place.home / "results" / "pretrain").glob("*/job.json")
    return next(path.parent for path in folders if json.loads(path.read_text())["spec"]["steps"] == steps)


def _mlflow_status(stack: RunningStack, run_id: str) -> str:
    answer = httpx.get(f"{stack.url('mlflow')}/api/2.0/mlflow/runs/get", params={"run_id": run_id})
    return str(answer.raise_for_status().json()["run"]["info"]["status"])


def _pretrain_statuses(stack: RunningStack) -> list[str]:
    url = f"{stack.url('mlflow')}/api/2.0/mlflow"
    experiment = httpx.get(f"{url}/experiments/get-by-name", params={"experiment_name": "foundation"}).json()
    body = {"experiment_ids": [experiment["experiment"]["experiment_id"]], "max_results": 50}
    body["filter"] = "tags.`foundation.stage` = 'pretrain'"
    runs = httpx.post(f"{url}/runs/search", json=body).raise_for_status().json()["runs"]
    return [run["info"]["status"] for run in runs]
