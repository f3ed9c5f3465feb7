"""A stack of real services over a data folder, and Prefect's API as its pages use it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest

from cluster.stack import MARK
from tests.support.workplace import Ended, Workplace


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
        answer = httpx.request(method, f"{self.url('prefect')}/api{path}", json=body or None, timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def start(self, flow: str, **parameters: Any) -> str:
        """Start a deployment as its form does; the id of the flow run."""
        deployment = self.ask("GET", f"/deployments/name/{flow}/{flow}")
        return str(self.ask("POST", f"/deployments/{deployment['id']}/create_flow_run", parameters=parameters)["id"])

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
