"""A published model in an environment that has nothing but its recorded requirements; installing them takes minutes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from foundation_core.files import read_json
from foundation_core.specs import PublishSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.publish import publish
from foundation_core.tracking.mlflow import MlflowRuns
from foundation_core.tracking.package import TOLERANCE
from tests.support.publishable import publishable

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(1800)]
START_SECONDS = 300

LOAD = """
import json, sys
import foundation_core, mlflow.pyfunc, pandas
assert foundation_core.__file__.startswith(sys.prefix), foundation_core.__file__
folder, example = sys.argv[1], json.load(open(sys.argv[2]))
model = mlflow.pyfunc.load_model(folder)
texts = pandas.DataFrame(example["rows"])
asked = {task: {**example["params"], "task": task} for task in example["answers"]}
print(json.dumps({task: model.predict(texts, params).to_dict("records") for task, params in asked.items()}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, serial_context: Callable[..., Context]) -> Path:
    """The folder of a published model, as it lies in the artifact store."""
    root = tmp_path_factory.mktemp("published")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    runs = MlflowRuns(uri, root / "artifacts", "publish")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOUNDATION_TRACKING_URI", uri)
        patch.setenv("FOUNDATION_RUN_ID", runs.open_pipeline("quickstart", "key", {}, {}))
        inputs = publishable(root / "stages", serial_context)
        publish(PublishSpec(model_name="tiny"), inputs, serial_context(root / "publish"))
    (requirements,) = (root / "artifacts").rglob("requirements.txt")
    return requirements.parent


@pytest.fixture(scope="module")
def fresh_python(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of a new virtual environment with the model's requirements in it."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--requirement", "requirements.txt"]
    subprocess.run(install, cwd=model, check=True)  # the wheel is named by its place inside the model
    assert subprocess.run([python, "-c", "import prefect"], capture_output=True).returncode != 0
    yield python
    shutil.rmtree(environment)  # more than a gigabyte


@pytest.fixture
def served(model: Path, fresh_python: Path, tmp_path: Path) -> Iterator[str]:
    """The address of `mlflow models serve` in that environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        fresh_python, "-m", "mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local",
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    environment = {**os.environ, "PATH": f"{fresh_python.parent}:{os.environ['PATH']}"}
    with open(tmp_path / "serve.log", "wb") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "serve.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_it_loads_and_answers_the_stored_example(model: Path, fresh_python: Path, tmp_path: Path) -> None:
    (tmp_path / "load.py").write_text(LOAD)
    (stored,) = model.rglob("example.json")
    command = [fresh_python, "-P", tmp_path / "load.py", model, stored]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers, expected = json.loads(done.stdout.splitlines()[-1]), read_json(stored)["answers"]
    assert answers.keys() == expected.keys()
    for task, rows in expected.items():
        for before, now in zip(rows, answers[task], strict=True):
            assert now.keys() == before.keys()
            for column, value in before.items():
                assert now[column] == (value if isinstance(value, str) else pytest.approx(value, abs=TOLERANCE)), column


def test_it_is_served_over_http(model: Path, served: str) -> None:
    example = json.loads((model / "serving_input_example.json").read_text())
    (answer,) = _asked(served, example)
    assert set(answer) == {"completion"}
    (answer,) = _asked(served, {**example, "params": {"task": "classify"}})
    assert set(answer) == {"label", "probability"}


def _asked(served: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{served}/invocations", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        predictions: list[dict[str, Any]] = json.load(answer)["predictions"]
    return predictions


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    last_moment = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, OSError):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < last_moment, log.read_text()
            time.sleep(0.2)
        else:
            return
