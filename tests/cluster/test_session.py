"""A session makes each stage once, shows it in one MLflow run, and leaves no process and no open run behind."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from cluster.job import Job, run
from cluster.launch import Event
from cluster.planning import source_content_of
from cluster.session import EXPERIMENT, Session
from cluster.settings import Settings
from foundation_core.errors import DataError
from foundation_core.specs import PipelineSpec
from foundation_core.store import IDS_FILE, Result
from foundation_core.tracking.mlflow import MlflowRuns
from tests.cluster.conftest import Recipes


@dataclass
class Place:
    """A data folder with an MLflow store of its own, and what sessions there reported."""

    home: Path
    recipe: PipelineSpec
    tracking_uri: str = ""
    events: list[Event] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """Its settings."""
        return Settings(self.home, tracking_uri=self.tracking_uri)

    def ingest(self, act: Callable[[Event], None] = lambda event: None) -> Result:
        """Run the ingest stage in a session of its own."""

        def report(stage: str, event: Event) -> None:
            self.events.append({**event, "stage": stage})
            act(event)

        content = source_content_of(self.recipe)
        with Session(self.recipe, self.settings, content, report, last="ingest", prefect_run="prefect-1") as session:
            return session.run("ingest", {})

    def kinds(self) -> list[str]:
        """What was reported."""
        return [event["kind"] for event in self.events]

    def runs(self) -> dict[str, list[Run]]:
        """The MLflow runs: of pipelines, and of stages."""
        client = MlflowClient(tracking_uri=self.settings.mlflow_uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        found = client.search_runs([experiment.experiment_id])
        return {
            "pipeline": [run for run in found if "mlflow.parentRunId" not in run.data.tags],
            "stage": [run for run in found if "mlflow.parentRunId" in run.data.tags],
        }


@pytest.fixture(scope="module")
def make_place(ingest_recipe: Recipes, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Place]:
    """Builds a place in a folder; its SQLite store is copied, because making the tables takes seconds."""
    store = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowRuns(f"sqlite:///{store}", None, "unused")

    def build(home: Path, **ingest: Any) -> Place:
        home.mkdir(exist_ok=True)
        shutil.copy(store, home)
        return Place(home, ingest_recipe(**ingest))

    return build


@pytest.fixture(scope="module")
def ran(ingest_recipe: Recipes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Result]:
    """A place in which a session ingested the corpus, and the result."""
    place = Place(tmp_path_factory.mktemp("session"), ingest_recipe())
    return place, place.ingest()


def test_the_stage_is_one_finished_child_run_with_all_that_it_said(ran: tuple[Place, Result]) -> None:
    place, result = ran
    (stage,) = place.runs()["stage"]
    (pipeline,) = [run for run in place.runs()["pipeline"] if run.info.run_id == stage.data.tags["mlflow.parentRunId"]]
    assert pipeline.info.status == stage.info.status == "FINISHED"
    assert stage.info.run_id == result.ids["mlflow_run"]
    assert stage.data.tags["foundation.action_key"] == result.key
    assert stage.data.tags["foundation.content_hash"] == result.content
    assert stage.data.tags["foundation.prefect_run"] == "prefect-1" == result.ids["prefect_run"]
    assert stage.data.params["tokenizer.vocabulary"] == "300"
    assert pipeline.data.params["ingest.tokenizer.vocabulary"] == "300"
    assert stage.data.metrics["ingest/tokens"] == result.summary["tokens"]
    assert stage.data.metrics["ingest/documents_in"] == result.summary["documents"]["in"]


def test_only_what_the_wanted_stage_needs_is_started_and_nothing_of_it_is_left(ran: tuple[Place, Result]) -> None:
    place, _ = ran
    assert sorted(path.name for path in (place.home / "logs").iterdir()) == ["stages.log"]
    marks = [str(place.home), "cluster.job"]
    left = [process for process in psutil.Process().children(recursive=True) if _mentions(process, marks)]
    assert left == []


def _mentions(process: psutil.Process, words: list[str]) -> bool:
    try:
        return any(word in " ".join(process.cmdline()) for word in words)
    except psutil.Error:
        return False


def test_a_second_time_the_result_is_found_and_nothing_is_done(ran: tuple[Place, Result]) -> None:
    place, result = ran
    before = place.runs()["stage"][0].data.to_dictionary()
    place.events.clear()
    assert place.ingest() == result
    assert place.kinds() == ["reused"]
    assert [stage.data.to_dictionary() for stage in place.runs()["stage"]] == [before]


def test_what_was_committed_by_a_launcher_that_died_is_logged_and_not_done_again(
    tmp_path: Path, make_place: Callable[..., Place], make_ingest_job: Callable[..., Job]
) -> None:
    assert run(make_ingest_job(tmp_path)) == 0
    place = make_place(tmp_path)
    result = place.ingest()
    assert "launch" not in place.kinds()
    (stage,) = place.runs()["stage"]
    assert stage.info.status == "FINISHED"
    assert stage.data.metrics["ingest/tokens"] == result.summary["tokens"]
    assert (result.folder / IDS_FILE).exists()


def test_two_callers_of_the_same_recipe_share_the_work(tmp_path: Path, make_place: Callable[..., Place]) -> None:
    place, results, running = make_place(tmp_path), [], threading.Event()
    second = threading.Thread(target=lambda: running.wait() and results.append(place.ingest()))
    second.start()
    results.append(place.ingest(lambda event: running.set() if event["kind"] == "progress" else None))
    second.join()
    assert results[0] == results[1]
    assert place.kinds().count("launch") == 1
    assert len(place.runs()["stage"]) == 1
    assert {run.info.status for runs in place.runs().values() for run in runs} == {"FINISHED"}


@pytest.mark.parametrize(
    ("ingest", "error", "status"),
    [
        ({"filters": [{"measure": "characters", "at_least": 10**9}]}, DataError, "FAILED"),
        ({}, KeyboardInterrupt, "KILLED"),
    ],
)
def test_work_that_does_not_end_well_closes_its_runs(
    tmp_path: Path, make_place: Callable[..., Place], ingest: dict[str, Any], error: type[BaseException], status: str
) -> None:
    place = make_place(tmp_path, **ingest)

    def interrupt(event: Event) -> None:
        if error is KeyboardInterrupt and event["kind"] == "progress":
            raise error

    with pytest.raises(error):
        place.ingest(interrupt)
    runs = place.runs()
    assert [run.info.status for run in runs["pipeline"] + runs["stage"]] == [status, status]
    if error is KeyboardInterrupt:
        again = place.ingest()
        runs = place.runs()
        assert [run.info.status for run in runs["pipeline"] + runs["stage"]] == ["FINISHED", "FINISHED"]
        assert again.ids["mlflow_run"] == runs["stage"][0].info.run_id, "it goes on in the same run"


def test_while_mlflow_is_away_the_work_is_done_and_logged_later(
    tmp_path: Path, make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    place = make_place(tmp_path)
    place.tracking_uri = "http://127.0.0.1:9"
    result = place.ingest()
    assert result.ids == {}
    assert any("MLflow was away" in event.get("text", "") for event in place.events)
    place.tracking_uri = ""
    place.events.clear()
    later = place.ingest()
    assert "launch" not in place.kinds()
    assert later.content == result.content
    assert place.runs()["stage"][0].data.metrics["ingest/tokens"] == later.summary["tokens"]
