"""With fifty runs in the history the pages and forms are quick: a real Chromium and a stopwatch."""

from __future__ import annotations

import time

import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
from playwright.sync_api import Page, expect

from tests.support.browser import NEEDS_CHROMIUM, WAIT_MS, picture
from tests.support.stack import RunningStack

pytestmark = [pytest.mark.browser, pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600), NEEDS_CHROMIUM]

RUNS = 50
STAGES = ("ingest", "pretrain", "finetune", "evaluate", "publish")
POINTS = 200
QUICK_SECONDS = 5.0


def test_pages_and_forms_are_quick_with_fifty_runs(stack: RunningStack, page: Page) -> None:
    form = stack.ask("GET", "/deployments/name/pipeline/pipeline")["id"]
    experiment = _fifty_runs(stack, form)
    prefect, mlflow, newest = stack.url("prefect"), stack.url("mlflow"), f"history-{RUNS - 1}"
    places = {
        "the form": (f"{prefect}/deployments/deployment/{form}/run", "Peak learning rate"),
        "the runs in Prefect": (f"{prefect}/runs", newest),
        "the runs in MLflow": (f"{mlflow}/#/experiments/{experiment}/runs", newest),
    }
    took = {name: _seconds(page, *place) for name, place in places.items()}
    print("".join(f"\n{name}: {seconds:.1f} s" for name, seconds in took.items()))
    assert max(took.values()) < QUICK_SECONDS, took


def _seconds(page: Page, address: str, shown: str) -> float:
    """From the address to the first sight of what a person looks for there, with the scripts in the browser's cache."""
    for _ in range(2):
        page.goto("about:blank")
        start = time.monotonic()
        page.goto(address)
        expect(page.get_by_text(shown).first).to_be_visible(timeout=WAIT_MS)
    took = time.monotonic() - start
    picture(page, f"history-{shown.replace(' ', '-').lower()}-{'mlflow' if '#' in address else 'prefect'}")
    return took


def _fifty_runs(stack: RunningStack, form: str) -> str:
    """Pipelines that have ended, in Prefect and with their stages and curves in MLflow; the experiment's id."""
    client = MlflowClient(tracking_uri=stack.url("mlflow"))
    known = client.get_experiment_by_name("foundation")
    experiment = str(known.experiment_id if known else client.create_experiment("foundation"))
    for number in range(RUNS):
        name = f"history-{number}"
        body = {
            "name": name,
            "parameters": {"recipe": "miniature"},
            "state": {"type": "COMPLETED", "name": "Completed"},
        }
        stack.ask("POST", f"/deployments/{form}/create_flow_run", **body)
        parent = client.create_run(experiment, run_name=name).info.run_id
        for stage in STAGES:
            run = client.create_run(experiment, run_name=stage, tags={"mlflow.parentRunId": parent}).info.run_id
            curve = [Metric("train/loss_nats", 1 / (step + 1), step, step) for step in range(POINTS)]
            client.log_batch(run, metrics=curve)
            client.set_terminated(run)
        client.set_terminated(parent)
    return experiment
