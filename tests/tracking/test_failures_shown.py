"""Failures of an event log are counted in MLflow by class, however often the log is read; MLflow's own absence too."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from cluster import mirror
from cluster.mirror import Mirror
from flows.summary import failure_rows
from foundation_core.errors import TransientError
from foundation_core.events import EventLog, read_events
from foundation_core.tracking.mlflow import MlflowRuns, MlflowTracker

OpenRuns = Callable[[], MlflowRuns]


def _mirrored(folder: Path, runs: MlflowRuns, during: Callable[[], None] = lambda: None) -> str:
    """Mirror a folder's log as a stage that runs while something happens; the id of its run."""
    opened: Future[MlflowRuns] = Future()
    opened.set_result(runs)
    shown = Mirror(folder, opened, lambda runs: runs.open_pipeline("quickstart", "key", {}, {}))
    run_id = shown.run_id.result(60)
    during()
    assert shown.close("KILLED")
    return run_id


def _write_failures(folder: Path) -> None:
    log = EventLog(folder)
    for attempt, name in enumerate(["killed_worker", "lost_node", "killed_worker"]):
        log.write("failure", failure=name, step=10 * attempt, attempt=attempt, budget_left=2, what=f"worker {attempt}")
        log.write("recovered", failure=name, step=10 * attempt + 1, seconds=20.0 + attempt)


def test_each_class_is_counted_once_however_often_the_log_is_read(
    tmp_path: Path, open_runs: OpenRuns, store_uri: str
) -> None:
    _write_failures(tmp_path)
    ids = {_mirrored(tmp_path, open_runs()) for _ in range(2)}
    client, (run_id,) = MlflowClient(store_uri), ids
    history = client.get_metric_history(run_id, "failures/killed_worker")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 2.0)]
    run = client.get_run(run_id).data
    assert run.metrics["failures/lost_node"] == 1
    assert run.metrics["recovery/killed_worker_seconds"] == 22
    assert run.tags["failure.killed_worker"] == "killed_worker, step 20: worker 2; 2 more in a row would be borne"
    assert run.tags["recovered.lost_node"] == "recovered from lost_node after 21 s, step 11"


def test_the_table_for_people_has_a_row_a_failure_with_what_it_took(tmp_path: Path) -> None:
    _write_failures(tmp_path)
    rows = failure_rows(event for _, event in read_events(tmp_path))
    assert [(row["failure"], row["went on after"]) for row in rows] == [
        ("killed_worker", "20 s"), ("lost_node", "21 s"), ("killed_worker", "22 s"),
    ]  # fmt: skip
    assert failure_rows([]) == []


def test_mlflow_away_is_a_failure_that_mlflow_learns_of_when_it_is_back(
    tmp_path: Path, open_runs: OpenRuns, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(mirror, "AWAY_SECONDS", 0.05)
    log, flush = EventLog(tmp_path), MlflowTracker.flush

    def refuse(tracker: MlflowTracker) -> None:
        raise TransientError("the MLflow store does not answer")

    def outage() -> None:
        monkeypatch.setattr(MlflowTracker, "flush", refuse)
        log.write("metrics", values={"train/loss_nats": 2.0}, step=1)
        _wait(tmp_path, "failure")
        monkeypatch.setattr(MlflowTracker, "flush", flush)
        _wait(tmp_path, "recovered")
        log.write("end", status="done")

    run = MlflowClient(store_uri).get_run(_mirrored(tmp_path, open_runs(), outage)).data
    assert run.metrics["failures/tracking_away"] == 1
    assert run.metrics["train/loss_nats"] == 2
    assert run.tags["failure.tracking_away"] == "tracking_away (MLflow): the MLflow store does not answer"
    *_, (_, last) = read_events(tmp_path)
    assert last["kind"] == "end", "the last word of a job is its own"


def _wait(folder: Path, kind: str) -> None:
    deadline = time.monotonic() + 30
    while not any(event["kind"] == kind for _, event in read_events(folder)):
        assert time.monotonic() < deadline, kind
        time.sleep(0.005)
