"""The same runs against a real MLflow server on loopback, which goes away and comes back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from foundation_core.errors import TransientError
from foundation_core.tracking.mlflow import MlflowRuns

pytestmark = pytest.mark.services
START_SECONDS = 90


class Server:
    """A tracking server with one worker and no job runners."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}",
            "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self._wait_until(lambda: self._answers(), "the server does not answer")

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _wait_until(self, done: Callable[[], bool], problem: str) -> None:
        last_moment = time.monotonic() + START_SECONDS
        while not done():
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < last_moment, problem
            time.sleep(0.1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server; killed with all its children in the end."""
    server = Server(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_a_run_lives_through_an_outage_of_its_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    runs = MlflowRuns(server.uri, None, "outage")
    parent = runs.open_pipeline("quickstart", "pipeline key", {"notes": "x" * 20_000, "seed": 0}, {})
    run_id = runs.open_stage(parent, "pretrain", "stage key", {"steps": 200}, {"foundation.ray_job": "job"})
    tracker = runs.tracker(run_id)
    (tmp_path / "card.md").write_text("# Card")
    tracker.artifact(tmp_path / "card.md", "cards")
    tracker.dataset("corpus/train", {"digest": "ab" * 32, "source": "python_stdlib"})
    tracker.metrics({"train/loss_nats": 2.0}, 1)
    tracker.flush()

    server.stop()
    tracker.metrics({"train/loss_nats": 1.0}, 2)
    with pytest.raises(TransientError, match="refused"):
        tracker.flush()
    server.start()
    tracker.flush()

    again = MlflowRuns(server.uri, None, "outage")  # a launcher that was started anew replays everything
    assert again.open_stage(parent, "pretrain", "stage key", {"steps": 200}, {}) == run_id
    again.tracker(run_id).metrics({"train/loss_nats": 1.0}, 2)
    again.close(run_id, "FINISHED")
    client = MlflowClient(tracking_uri=server.uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert [metric.step for metric in client.get_metric_history(run_id, "train/loss_nats")] == [1, 2]
    assert [file.path for file in client.list_artifacts(run_id, "cards")] == ["cards/card.md"]
    assert len(run.inputs.dataset_inputs) == 1
