"""A stack of real services over a data folder, and Prefect's API as its pages use it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cluster.stack import MARK
from foundation_core.events import read_events
from foundation_core.tracking.open_runs import open_runs
from tests.support.workplace import Ended, Workplace

BUSY, ATTEMPTS = 503, 5
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class RunningStack:
    """A workplace whose services are up."""

    place: Workplace

    def states(self) -> dict[str, dict[str, Any]]:
        """What `foundation status --json` says, by service."""
        return {row["name"]: row for row in json.loads(self.place.run("status", "--json").output)}

    def url(self, service: str) -> str:
        """The address of a service."""
        return str(json.loads((self.place.home / "stack" / f"{service}.json").read_text())["url"])

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """Prefect's answer to a request; its errors are ours."""
        return self.ask_with(method, path, body or None)

    def ask_with(self, method: str, path: str, body: Any) -> Any:
        """As `ask`, with any body."""
        for attempt in range(ATTEMPTS):
            answer = httpx.request(method, f"{self.url('prefect')}/api{path}", json=body, timeout=30)
            if answer.status_code != BUSY:
                break
            time.sleep(0.2 * 2**attempt)  # its SQLite is being written; Prefect's own client asks again too
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def start(self, flow: str, **parameters: Any) -> str:
        """Start a deployment as its form does; the id of the flow run."""
        deployment = self.ask("GET", f"/deployments/name/{flow}/{flow}")
        return str(self.ask("POST", f"/deployments/{deployment['id']}/create_flow_run", parameters=parameters)["id"])

    def told(self, run_id: str, kind: str, least: int) -> list[str]:
        """Classes of the events of a kind in Prefect's feed that a run told, once there are so many."""
        feed = {
            "event": {"prefix": [f"foundation.{kind}."]},
            "related": {"id": [f"prefect.flow-run.{run_id}"]},
            "order": "ASC",
        }
        deadline = time.monotonic() + 60
        while len(found := self.ask("POST", "/events/filter", filter=feed)["events"]) < least:
            assert time.monotonic() < deadline, f"{len(found)} events of {least}"
            time.sleep(0.3)
        return [event["event"].rpartition(".")[2] for event in found]

    def run(self, run_id: str) -> dict[str, Any]:
        """A flow run."""
        found: dict[str, Any] = self.ask("GET", f"/flow_runs/{run_id}")
        return found

    def artifacts(self, run_id: str) -> list[dict[str, Any]]:
        """The artifacts that a run and its tasks made."""
        found: list[dict[str, Any]] = self.ask("POST", "/artifacts/filter", flow_runs={"id": {"any_": [run_id]}})
        return found

    def wait_for(self, run_id: str, done: Callable[[Mapping[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """The run, once something holds of it."""
        deadline = time.monotonic() + seconds
        while not done(found := self.run(run_id)):
            assert time.monotonic() < deadline, f"the run is {found['state']['name']}: {found['state']['message']}"
            time.sleep(0.2)
        return found

    def finish(self, run_id: str, seconds: float = 240) -> dict[str, Any]:
        """The run, once it has come to an end of whatever kind."""
        return self.wait_for(run_id, lambda run: run["state"]["type"] in ENDED, seconds)

    def retry(self, run_id: str) -> None:
        """What *Retry* on the page of a run that failed does."""
        self.ask(
            "POST", f"/flow_runs/{run_id}/set_state", state={"type": "SCHEDULED", "name": "AwaitingRetry"}, force=True
        )

    def training(self, steps: int, others: str, at_step: int) -> tuple[str, Path]:
        """A run of the form `pretrain` whose training has reached a step, and its folder."""
        run_id = self.start("pretrain", recipe="miniature", steps=steps, others=others)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            for path in (self.place.home / "results" / "pretrain").glob("*/job.json"):
                if json.loads(path.read_text())["spec"]["steps"] == steps and step_of(path.parent) >= at_step:
                    return run_id, path.parent
            time.sleep(0.2)
        raise AssertionError(f"the training did not begin: {self.run(run_id)['state']}")

    def open_runs(self, folder: Path) -> list[str]:
        """MLflow runs of a stage's folder, and of pipelines, that are not closed."""
        key = json.loads((folder / "job.json").read_text())["key"]["digest"]
        return [run.run_id for run in open_runs(self.url("mlflow")) if run.key == key or run.stage == "pipeline"]

    def workers(self) -> list[psutil.Process]:
        """What trains now."""
        return self.place.processes("RayTrainWorker")

    def marked(self) -> list[psutil.Process]:
        """Every process of this stack, and what works for it."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK, "").endswith(f"@{self.place.home}"):
                    found.append(process)
            except psutil.Error:
                continue
        return found


def step_of(folder: Path) -> int:
    """The step that a stage has reported last."""
    return max((event["done"] for _, event in read_events(folder) if event["kind"] == "progress"), default=0)


def until(holds: Callable[[], bool], deadline: float, words: str) -> None:
    """Return once something holds; words say what did not, if it is too late."""
    while not holds():
        assert time.monotonic() < deadline, words
        time.sleep(0.3)


@pytest.fixture(scope="session")
def stack(finished: tuple[Workplace, Ended], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The services over a data folder of their own; whatever a test leaves is ended."""
    home = tmp_path_factory.mktemp("stack")
    place = Workplace(home, finished[0].recipe)
    os.environ["FOUNDATION_RECIPES"] = str(place.recipe.parent)
    try:
        ended = place.run("up")
        assert ended.status == 0, ended.output
        yield RunningStack(place)
    finally:
        ended = place.run("down")
        del os.environ["FOUNDATION_RECIPES"]
    assert ended.status == 0, ended.output
    _, alive = psutil.wait_procs(RunningStack(place).marked(), timeout=20)
    assert alive == []
