"""A Prefect server of another's that is killed during a stage: the stage is done once, and what failed is told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.embedded import answers, free_port
from foundation_core.events import EventLog, read_events
from foundation_core.store import load_result
from tests.support.workplace import Workplace

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]


@dataclass
class Server:
    """A real Prefect server on a loopback port, which can be killed and started again over its database."""

    home: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of its API."""
        return f"http://127.0.0.1:{self.port}/api"

    def start(self) -> None:
        """Return once it answers."""
        application = "prefect.server.api.server:create_app"
        where = ["--factory", application, "--host", "127.0.0.1", "--port", str(self.port), "--log-level", "error"]
        environment = {
            **os.environ,
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        }
        self.process = subprocess.Popen([sys.executable, "-m", "uvicorn", *where], env=environment)
        _until(lambda: answers(f"{self.url}/health"), "Prefect does not start")

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def ask(self, path: str, **body: Any) -> Any:
        """What it answers to a question."""
        answer = httpx.post(f"{self.url}{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One that runs; whatever a test leaves of it is ended."""
    made = Server(tmp_path / "prefect")
    made.start()
    yield made
    made.kill()


def test_a_server_that_is_back_has_the_failures_of_its_absence_and_the_stage_is_done_once(
    server: Server, workplace: Workplace
) -> None:
    command = _ingest(server, workplace)
    folder = _at_work(workplace)
    server.kill()
    EventLog(folder).write("failure", failure="killed_worker", step=None, attempt=1, budget_left=1, what="it is gone")
    server.start()
    output, _ = command.communicate(timeout=300)
    assert command.returncode == 0, output
    _until(lambda: "foundation.failure.killed_worker" in _feed(server), "the failure is not told")
    assert _feed(server).count("foundation.failure.killed_worker") == 1
    assert [run["state"]["type"] for run in server.ask("/flow_runs/filter")] == ["COMPLETED"]
    assert _starts(folder) == 1


def test_a_server_that_stays_away_costs_no_result_and_the_next_command_ends_the_run(
    server: Server, workplace: Workplace
) -> None:
    command = _ingest(server, workplace, PREFECT_CLIENT_MAX_RETRIES="1")
    folder = _at_work(workplace)
    server.kill()
    output, _ = command.communicate(timeout=300)
    assert command.returncode == 1, output
    assert f"Prefect at {server.url} does not answer" in output
    assert "Prefect was away: " in output
    assert "Traceback" not in output
    assert load_result(folder).ids, "the stage is not whole"
    again = _ingest(server, workplace)
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    assert _starts(folder) == 1


def _ingest(server: Server, place: Workplace, **variables: str) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("foundation")), "ingest", str(place.recipe)]
    environment = {**place.environment, "PREFECT_API_URL": server.url, **variables}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=place.home
    )


def _at_work(place: Workplace) -> Path:
    """The folder of the ingestion, once its job has begun."""
    found: list[Path] = []

    def begun() -> bool:
        found[:] = [path.parent for path in (place.home / "results" / "ingest").glob("*/events.jsonl")]
        return bool(found)

    _until(begun, "the ingestion does not begin", look_seconds=0.01)
    return found[0]


def _feed(server: Server) -> list[str]:
    told = server.ask("/events/filter", filter={"event": {"prefix": ["foundation."]}})
    return [event["event"] for event in told["events"]]


def _starts(folder: Path) -> int:
    return [event["kind"] for _, event in read_events(folder)].count("start")


def _until(holds: Callable[[], bool], words: str, look_seconds: float = 0.2) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, words
        time.sleep(look_seconds)
