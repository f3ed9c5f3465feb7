"""The pipeline in miniature through all real parts: once, again, changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mlflow.tracking import MlflowClient

from foundation_core.store import Store
from tests.support.workplace import Ended, Workplace

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

STAGES = ["ingest", "pretrain", "finetune", "evaluate", "publish"]


def test_the_pipeline_ends_with_a_registered_model(finished: tuple[Workplace, Ended]) -> None:
    place, ended = finished
    assert ended.status == 0, ended.output
    assert "models:/miniature@candidate" in ended.output
    client = _client(place)
    version = client.get_model_version_by_alias("miniature", "candidate")
    for stage in STAGES[:-1]:
        result = Store(place.home / "results").history(stage)[0]
        assert version.tags[f"foundation.{stage}.action_key"] == result.key
        assert version.tags[f"foundation.{stage}.content_hash"] == result.content
        assert version.tags[f"foundation.{stage}.mlflow_run"] == result.ids["mlflow_run"]


def test_nothing_is_left_running(finished: tuple[Workplace, Ended]) -> None:
    assert finished[0].processes() == []


def test_mlflow_has_one_parent_and_one_child_a_stage_all_finished(finished: tuple[Workplace, Ended]) -> None:
    client = _client(finished[0])
    runs = client.search_runs([client.get_experiment_by_name("foundation").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = {run.data.tags["foundation.stage"]: run for run in runs if run is not parents[0]}
    assert sorted(children) == sorted(STAGES)
    assert len(runs) == 1 + len(STAGES)
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parents[0].info.run_id}
    pretrain = children["pretrain"]
    assert pretrain.data.tags["foundation.ray_job"].startswith("pretrain-")
    assert pretrain.data.tags["foundation.prefect_run"]
    assert pretrain.data.params["model.trunk.width"] == "32"
    assert [dataset.dataset.name for dataset in pretrain.inputs.dataset_inputs] == ["corpus"]
    history = client.get_metric_history(pretrain.info.run_id, "train/loss_nats")
    assert [metric.step for metric in history] == list(range(1, 13))


def test_a_second_time_does_nothing_and_starts_nothing(finished: tuple[Workplace, Ended]) -> None:
    place, _ = finished
    before = {path: path.stat().st_mtime_ns for path in place.home.rglob("*")}
    again = place.run("run", str(place.recipe))
    assert again.status == 0, again.output
    assert "nothing to do" in again.output
    assert {path: path.stat().st_mtime_ns for path in place.home.rglob("*")} == before


def test_another_learning_rate_reruns_what_follows_and_no_more(copied: Callable[[], Workplace]) -> None:
    place = copied()
    why = place.run("why", str(place.recipe), "--finetune.lr", "[0.002]").output.splitlines()
    assert [line.split()[:2] for line in why][:3] == [["ingest", "reuse"], ["pretrain", "reuse"], ["finetune", "run"]]
    assert "spec.lr" in why[2]
    ended = place.run("run", str(place.recipe), "--finetune.lr", "[0.002]")
    assert ended.status == 0, ended.output
    counts = {stage: len(Store(place.home / "results").history(stage)) for stage in STAGES}
    assert counts == {"ingest": 1, "pretrain": 1, "finetune": 2, "evaluate": 2, "publish": 2}


def _client(place: Workplace) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{place.home / 'mlflow.db'}")
