"""Prefect is told of a stage by a thread that nobody waits for; what it missed is kept and told once it is back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from cluster.embedded import free_port
from cluster.leases import lease
from flows import mirror
from flows.mirror import OFFSET_FILE, PrefectMirror
from flows.summary import failure_rows
from foundation_core.events import EventLog, read_events
from foundation_core.failures import told


class Api:
    """Takes what Prefect would take, while it is up."""

    def __init__(self, port: int) -> None:
        self.taken: list[tuple[str, Any]] = []
        self.port = port
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        taken = self.taken

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                taken.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
                self._answer()

            def _answer(self) -> None:
                self.send_response(404 if "csrf" in self.path else 200)  # 404: a server that wants no token
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def events(self) -> list[str]:
        return [each["event"] for path, body in self.taken if path == "/api/events" for each in body]

    def lines(self) -> list[str]:
        return [each["message"] for path, body in self.taken if path == "/api/logs/" for each in body]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """An API that is away until it is started, and a flow run that reports to it."""
    run = SimpleNamespace(id=uuid4(), name="run", flow_id=uuid4(), deployment_id=None)
    flow = SimpleNamespace(name="pretrain")
    monkeypatch.setattr(mirror.FlowRunContext, "get", lambda: SimpleNamespace(flow_run=run, flow=flow))
    monkeypatch.setattr(mirror, "AWAY_SECONDS", 0.0)
    monkeypatch.setattr(mirror, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(mirror, "PATIENCE_SECONDS", 1.0)
    made = Api(free_port())
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{made.port}/api"}):
        yield made
    made.stop()


def test_what_failed_while_prefect_was_away_is_told_when_it_is_back_and_once(api: Api, tmp_path: Path) -> None:
    said: list[str] = []
    with lease(tmp_path) as mine, _mirror(said) as prefect:
        assert mine
        log = EventLog(tmp_path)
        log.say("it begins")
        prefect.begin("pretrain", tmp_path)
        log.write("failure", failure="hang", step=3, attempt=1, budget_left=None, what="rank 1 stands still")
        _until(lambda: _classes(tmp_path, "failure") == ["hang", "tracking_away"])
        api.start()
        _until(lambda: _classes(tmp_path, "recovered") == ["tracking_away"])
    expected = ["foundation.failure.hang", "foundation.failure.tracking_away", "foundation.recovered.tracking_away"]
    assert api.events() == expected
    assert api.lines()[0] == "pretrain: it begins"
    assert "tracking_away (Prefect)" in api.lines()[2]
    with _mirror(said) as prefect:  # the next command, which reuses the stage
        prefect.catch_up("pretrain", tmp_path)
    assert api.events() == expected
    assert said == []


def test_a_prefect_that_stays_away_holds_nobody_up_and_the_next_run_tells(api: Api, tmp_path: Path) -> None:
    said: list[str] = []
    shown: list[str] = []
    with _mirror(said) as prefect:
        prefect.begin("ingest", tmp_path)
        EventLog(tmp_path).write("failure", failure="lost_node", step=None, attempt=1, budget_left=1, what="gone")
        prefect.show(lambda: shown.append("card"))
    assert shown == []
    assert len(said) == 1
    assert "Prefect was away" in said[0]
    api.start()
    with _mirror(said) as prefect:
        prefect.catch_up("ingest", tmp_path)
        prefect.show(lambda: shown.append("card"))
    assert api.events() == ["foundation.failure.lost_node"]
    assert shown == ["card"]
    assert len(said) == 1


def test_a_stage_that_prefect_was_never_told_of_is_not_told_when_it_is_reused(api: Api, tmp_path: Path) -> None:
    EventLog(tmp_path).write("failure", failure="lost_node", step=None, attempt=1, budget_left=1, what="long ago")
    api.start()
    with _mirror([]) as prefect:
        prefect.catch_up("ingest", tmp_path)
    assert api.events() == []
    assert not (tmp_path / OFFSET_FILE).exists()


def test_an_artifact_that_cannot_be_made_is_given_up_and_those_behind_it_are_made(api: Api, tmp_path: Path) -> None:
    said: list[str] = []
    shown: list[str] = []
    tries = iter(["busy", "shown"])

    def broken() -> None:
        raise ValueError("no such column")

    def fails_once() -> None:
        if next(tries) == "busy":
            raise OSError("busy")
        shown.append("plan")

    api.start()
    with _mirror(said) as prefect:
        prefect.begin("ingest", tmp_path)
        for show in (broken, fails_once, lambda: shown.append("card")):
            prefect.show(show)
        _until(lambda: "card" in shown)
    assert shown == ["plan", "card"]
    assert said == ["a part of the run's page could not be made: ValueError: no such column"]


def test_the_return_of_one_service_is_not_that_of_the_other() -> None:
    away = {"kind": "failure", "failure": "tracking_away", "step": None, "what": "no answer"}
    back = {"kind": "recovered", "failure": "tracking_away", "step": None, "seconds": 7.0, "service": "MLflow"}
    rows = failure_rows([{**away, "service": "MLflow"}, {**away, "service": "Prefect"}, back])
    assert [row["went on after"] for row in rows] == ["7 s", ""]
    assert told(back) == "recovered from tracking_away (MLflow) after 7 s"


def _mirror(said: list[str]) -> PrefectMirror:
    return PrefectMirror(lambda stage, event: said.append(event["text"]))


def _classes(folder: Path, kind: str) -> list[str]:
    return [event["failure"] for _, event in read_events(folder) if event["kind"] == kind]


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
