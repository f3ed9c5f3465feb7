"""Runs in a real SQLite store: reopened under the same id, nothing logged twice, everything findable."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from foundation_core.errors import ConfigError, TransientError
from foundation_core.specs import FilterSpec, PipelineSpec, leaves
from foundation_core.tracking.lineage import ACTION_KEY
from foundation_core.tracking.mlflow import PARENT, MlflowRuns

OpenRuns = Callable[[], MlflowRuns]


@pytest.fixture(scope="module")
def client(store_uri: str) -> MlflowClient:
    """The store, seen from outside."""
    return MlflowClient(tracking_uri=store_uri)


def steps(client: MlflowClient, run_id: str, name: str) -> list[int]:
    return [metric.step for metric in client.get_metric_history(run_id, name)]


def log_losses(runs: MlflowRuns, run_id: str, first: int, last: int) -> None:
    for step in range(first, last + 1):
        runs.tracker(run_id).metrics({"train/loss_nats": 9.0 - step / 10}, step)
    runs.tracker(run_id).flush()


def test_a_run_that_was_not_finished_is_reopened_under_the_same_id(open_runs: OpenRuns, client: MlflowClient) -> None:
    for ending in ("FAILED", "KILLED"):
        runs = open_runs()
        run_id = runs.open_pipeline("quickstart", ending, {}, {})
        runs.close(run_id, ending)
        runs = open_runs()
        assert runs.open_pipeline("quickstart", ending, {}, {}) == run_id
        assert client.get_run(run_id).info.status == "RUNNING"
        runs.close(run_id, "FINISHED")
        assert client.get_run(run_id).info.status == "FINISHED"


def test_a_run_that_nobody_closed_is_reopened_too(open_runs: OpenRuns) -> None:
    run_id = open_runs().open_pipeline("quickstart", "key", {}, {})
    assert open_runs().open_pipeline("quickstart", "key", {}, {}) == run_id


def test_a_finished_run_or_another_key_gets_a_new_run(open_runs: OpenRuns) -> None:
    runs = open_runs()
    run_id = runs.open_pipeline("quickstart", "key", {}, {})
    assert runs.open_pipeline("quickstart", "other key", {}, {}) != run_id
    runs.close(run_id, "FINISHED")
    assert runs.open_pipeline("quickstart", "key", {}, {}) != run_id


def test_a_sweep_and_its_points_are_found_again_though_they_are_finished(
    open_runs: OpenRuns, client: MlflowClient
) -> None:
    runs, ids = open_runs(), set()
    for _ in range(2):
        sweep = runs.open_sweep("key of the sweep", {}, {"foundation.stage": "sweep"})
        point = runs.open_point(sweep, "lr=0.002", "key of the point", {}, {"foundation.stage": "pipeline"})
        ids.add((sweep, point))
        assert client.get_run(point).data.tags["mlflow.parentRunId"] == sweep
        assert client.get_run(point).info.run_name == "lr=0.002"
        runs.close(point, "FINISHED")
        runs.close(sweep, "FINISHED")
    assert len(ids) == 1


def test_steps_that_are_replayed_after_reopening_are_logged_once(open_runs: OpenRuns, client: MlflowClient) -> None:
    run_id = open_runs().open_pipeline("quickstart", "key", {}, {})
    log_losses(open_runs(), run_id, 0, 6)
    log_losses(open_runs(), run_id, 4, 9)  # the job went back to its checkpoint at step 3
    assert steps(client, run_id, "train/loss_nats") == list(range(10))


def test_without_that_care_the_store_keeps_both_points(open_runs: OpenRuns, client: MlflowClient) -> None:
    run_id = open_runs().open_pipeline("quickstart", "key", {}, {})
    for timestamp_ms in (1, 2):
        client.log_metric(run_id, "train/loss_nats", 1.0, timestamp=timestamp_ms, step=5)
    assert steps(client, run_id, "train/loss_nats") == [5, 5]


def test_a_final_figure_is_logged_again_only_when_it_changed(open_runs: OpenRuns, client: MlflowClient) -> None:
    run_id = open_runs().open_pipeline("quickstart", "key", {}, {})
    for seconds in (3.25, 3.25, 4.5):
        runs = open_runs()
        runs.tracker(run_id).metrics({"stage/seconds": seconds})
        runs.tracker(run_id).flush()
    assert [metric.value for metric in client.get_metric_history(run_id, "stage/seconds")] == [3.25, 4.5]
    assert client.get_run(run_id).data.metrics["stage/seconds"] == 4.5


def test_a_figure_keeps_the_time_at_which_it_was_measured(open_runs: OpenRuns, client: MlflowClient) -> None:
    runs = open_runs()
    run_id = runs.open_pipeline("quickstart", "key", {}, {})
    runs.tracker(run_id).metrics({"train/loss_nats": 1.0}, step=1, at=1_700_000_000.5)
    runs.tracker(run_id).metrics({"train/loss_nats": 0.5}, step=2)
    runs.tracker(run_id).flush()
    measured, now = (metric.timestamp for metric in client.get_metric_history(run_id, "train/loss_nats"))
    assert measured == 1_700_000_000_500
    assert now > measured + 10**10


def test_a_changed_setting_is_no_error_and_is_kept_as_a_tag(open_runs: OpenRuns, client: MlflowClient) -> None:
    first = open_runs().open_stage("", "pretrain", "key", {"workers": 2, "steps": 200}, {})
    again = open_runs().open_stage("", "pretrain", "key", {"workers": 1, "steps": 200}, {})
    data = client.get_run(again).data
    assert again == first
    assert data.params == {"workers": "2", "steps": "200"}
    assert data.tags["changed.workers"] == "1"
    assert "changed.steps" not in data.tags


def test_every_leaf_of_a_recipe_becomes_a_parameter(open_runs: OpenRuns, client: MlflowClient) -> None:
    spec = PipelineSpec(ingest={"filters": [FilterSpec(measure="characters", at_least=200)]})  # type: ignore[arg-type]
    run_id = open_runs().open_pipeline("quickstart", "key", dict(leaves(spec)), {})
    params = client.get_run(run_id).data.params
    assert set(params) == {name for name, _ in leaves(spec)}
    assert params["pretrain.objective"] == "next_token"
    assert json.loads(params["finetune.lr"]) == list(spec.finetune.lr)
    assert json.loads(params["ingest.filters"])[0]["measure"] == "characters"


def test_a_setting_that_is_too_long_is_shortened_and_kept_whole_beside(
    open_runs: OpenRuns, client: MlflowClient, tmp_path: Path
) -> None:
    long = "x" * 20_000
    for _ in range(2):
        run_id = open_runs().open_pipeline("quickstart", "key", {"notes": long}, {})
    data = client.get_run(run_id).data
    assert len(data.params["notes"]) == 6000
    assert "params/notes.txt" in data.params["notes"]
    assert "changed.notes" not in data.tags
    assert Path(client.download_artifacts(run_id, "params/notes.txt", str(tmp_path))).read_text() == long


def test_a_stage_is_a_child_and_moves_below_the_pipeline_that_continues_it(
    open_runs: OpenRuns, client: MlflowClient
) -> None:
    runs = open_runs()
    first, second = (runs.open_pipeline("quickstart", key, {}, {}) for key in ("one", "two"))
    child = runs.open_stage(first, "pretrain", "stage key", {}, {"foundation.ray_job": "pretrain-abc-1"})
    tags = client.get_run(child).data.tags
    assert (tags[PARENT], tags[ACTION_KEY], tags["foundation.ray_job"]) == (first, "stage key", "pretrain-abc-1")
    runs.close(child, "KILLED")
    assert open_runs().open_stage(second, "pretrain", "stage key", {}, {}) == child
    assert client.get_run(child).data.tags[PARENT] == second


def test_an_unknown_metric_is_refused(open_runs: OpenRuns) -> None:
    runs = open_runs()
    tracker = runs.tracker(runs.open_pipeline("quickstart", "key", {}, {}))
    with pytest.raises(ConfigError, match="unknown metric 'train/los'"):
        tracker.metrics({"train/los": 1.0}, 1)


def test_the_description_gives_every_logged_metric_its_unit(open_runs: OpenRuns, client: MlflowClient) -> None:
    runs = open_runs()
    run_id = runs.open_pipeline("quickstart", "key", {}, {})
    log_losses(runs, run_id, 0, 1)
    runs.tracker(run_id).metrics({"task/scratch-few/macro_f1": 0.5, "task/scratch-few/accuracy": 0.6})
    runs.close(run_id, "FINISHED")
    description = client.get_run(run_id).data.tags["mlflow.note.content"]
    assert "| train/loss_nats | nats/token |" in description
    assert description.count("| task/… | mixed |") == 1
    assert "train/lr" not in description


def test_a_data_set_is_an_input_of_the_run_once(open_runs: OpenRuns, client: MlflowClient) -> None:
    run_id = open_runs().open_pipeline("quickstart", "key", {}, {})
    facts = {"digest": "ab" * 32, "source": "python_stdlib", "rows": 612, "tokens": 3_000_000}
    for _ in range(2):
        open_runs().tracker(run_id).dataset("corpus/train", facts)
    (logged,) = client.get_run(run_id).inputs.dataset_inputs
    assert logged.dataset.name == "corpus/train"
    assert facts["digest"].startswith(logged.dataset.digest)
    assert json.loads(logged.dataset.profile) == facts
    assert {tag.key: tag.value for tag in logged.tags} == {"mlflow.data.context": "train"}


def test_files_are_uploaded(open_runs: OpenRuns, client: MlflowClient, tmp_path: Path) -> None:
    run_id = open_runs().open_pipeline("quickstart", "key", {}, {})
    (tmp_path / "card.md").write_text("# Card")
    open_runs().tracker(run_id).artifact(tmp_path / "card.md", "cards")
    assert [file.path for file in client.list_artifacts(run_id, "cards")] == ["cards/card.md"]


def test_figures_wait_while_the_store_is_away(
    open_runs: OpenRuns, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    runs = open_runs()
    run_id = runs.open_pipeline("quickstart", "key", {}, {})
    tracker = runs.tracker(run_id)

    def away(*arguments: object, **keywords: object) -> None:
        raise MlflowException("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", away)
        tracker.metrics({"train/lr": 0.1}, 1)
        with pytest.raises(TransientError, match="connection refused"):
            tracker.flush()
    tracker.flush()
    assert steps(client, run_id, "train/lr") == [1]


WRITER = """
import sys
from pathlib import Path
from foundation_core.tracking.mlflow import MlflowRuns
uri, root, key = sys.argv[1:]
runs = MlflowRuns(uri, Path(root), "two writers")
run_id = runs.open_pipeline(key, key, {}, {})
print("ready", flush=True)
sys.stdin.readline()
for step in range(150):
    runs.tracker(run_id).metrics({"train/loss_nats": 1.0, "train/lr": 0.1}, step)
    runs.tracker(run_id).flush()
runs.close(run_id, "FINISHED")
print(run_id)
"""


def test_two_processes_write_to_one_sqlite_store_at_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"  # a new store: its tables and the experiment are raced for as well
    command = [sys.executable, "-c", WRITER, uri, str(tmp_path / "artifacts")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, key], **pipes) for key in ("one", "two")]  # type: ignore[call-overload]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    run_ids = [writer.communicate()[0].strip() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    client = MlflowClient(tracking_uri=uri)
    found: list[Run] = [client.get_run(run_id) for run_id in run_ids]
    assert [run.info.status for run in found] == ["FINISHED", "FINISHED"]
    assert all(steps(client, run_id, "train/lr") == list(range(150)) for run_id in run_ids)
