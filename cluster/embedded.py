"""The parts that a run starts for itself and ends with itself: a Ray head and a Prefect API.

Each runs under a guard: when the process that wanted it is gone, however it went, so is the part.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cluster.guard import guard_command
from cluster.settings import Settings, usable_cpus
from cluster.templates import DatabaseTemplate
from foundation_core.errors import TransientError

START_SECONDS = 90.0
RESTARTS = 3
TRAIN = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",
}
"""The Ray Train that `cluster/ray_train.py` is written for; older Rays have two. Without its process that looks for
nodes about to be lost and does no more than log them; and with time to start workers on a machine that is busy."""
QUIET = {
    **TRAIN,
    "RAY_USAGE_STATS_ENABLED": "0",
    "CUDA_VISIBLE_DEVICES": "",  # what is started here trains on CPUs; half of the parts would take a GPU
}
JOBS = {"RAY_JOB_STOP_WAIT_TIME_S": "300"}
"""For a Ray head: the rest of a job's step and its save take longer than the 3 s after which Ray would kill it."""


class Part:
    """A guarded process with a log file.

    Args:
        name: names its log.
        grace_seconds: how long it may take to leave when asked.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        settings: Settings,
        environment: dict[str, str],
        grace_seconds: float = 10.0,
    ) -> None:
        settings.logs.mkdir(parents=True, exist_ok=True)
        self.name, self.log = name, settings.logs / f"{name}.log"
        with open(self.log, "ab") as sink:
            self.process = subprocess.Popen(
                guard_command(command, grace_seconds),
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONSAFEPATH": "1", **environment},  # a folder here may be called flows
                start_new_session=True,
            )

    def end(self, *, at_once: bool = False) -> None:
        """Ask it to leave, and wait until it has.

        Args:
            at_once: it has nothing to save.
        """
        self.process.send_signal(signal.SIGQUIT if at_once else signal.SIGTERM)
        self.process.wait()


def ray_access(token: str) -> dict[str, str]:
    """What a process needs in its environment to use a Ray cluster with a token."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def ray_head_command(dashboard_port: int, folder: Path, port: int = 0, cpus: int = 0) -> list[str]:
    """The command that is a Ray head for this machine alone.

    Args:
        port: where other nodes would join; a free one, if not said.
        cpus: how many it offers; all that this process may use, if not said.
    """
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", f"--port={port or free_port()}", f"--num-cpus={cpus or usable_cpus()}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}", f"--temp-dir={folder}"),
        # Its usual port is one and the same for every head of a machine, and a head whose agent has none takes no jobs.
        f"--dashboard-agent-listen-port={free_port()}",
    ]


class RayHead:
    """A Ray cluster of this machine alone, open to nobody without its token."""

    def __init__(self, settings: Settings) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.token = secrets.token_hex(32)
        self.environment = {**ray_access(self.token), **QUIET}
        # Ray makes sockets below it, whose paths may have 107 bytes at the most: the data folder may be too deep.
        self.folder = Path(tempfile.mkdtemp(prefix="fnd-", dir="/tmp"))
        self.part = Part("ray", ray_head_command(self.port, self.folder), settings, {**self.environment, **JOBS})

    def wait(self) -> None:
        """Return once jobs can be submitted."""
        token = {"Authorization": f"Bearer {self.token}"}
        wait_until_answers(f"{self.address}/api/version", self.part.process, f"Ray (its log: {self.part.log})", token)

    def end(self) -> None:
        """Stop every process of the cluster, whose jobs are over, and remove its folder."""
        self.part.end(at_once=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class PrefectApi:
    """A Prefect API on loopback that lives as long as the run; one that dies is started again where it was."""

    def __init__(self, settings: Settings) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self._database, self._template = settings.home / "prefect" / "prefect.db", DatabaseTemplate("prefect")
        self._is_new = not self._database.exists()
        self._template.fill(self._database)
        self.environment = {**prefect_environment(settings), "PREFECT_SERVER_UI_ENABLED": "false"}
        command = [
            *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
            *("--host", "127.0.0.1", "--port", str(self.port), "--log-level", "error"),
        ]
        ephemeral = {
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",  # with the line above: no schedulers, no loops that look for late runs
            "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",  # flows here use none, and it takes a second
        }
        self._start = partial(Part, "prefect", command, settings, {**self.environment, **ephemeral})
        self.part = self._start()
        self._ended = threading.Event()

    def wait(self) -> None:
        """Return once flows can report to it."""
        wait_until_answers(f"{self.url}/health", self.part.process, f"the Prefect API (its log: {self.part.log})")
        if self._is_new:
            self._template.keep(self._database)
        threading.Thread(target=self._keep_alive, name="prefect-api", daemon=True).start()

    def end(self) -> None:
        """Stop it."""
        self._ended.set()
        self.part.end()

    def _keep_alive(self) -> None:
        """Those who report to it try again for a while, so that its death costs them seconds."""
        for _ in range(RESTARTS):
            self.part.process.wait()
            if self._ended.is_set():
                return
            self.part = self._start()


def prefect_environment(settings: Settings) -> dict[str, str]:
    """Where a Prefect server keeps its data, and that it tells nobody."""
    home = str(settings.home / "prefect")
    return {"PREFECT_HOME": home, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


def wait_until_answers(
    url: str, process: subprocess.Popen[Any], name: str, headers: Mapping[str, str] | None = None
) -> None:
    """Return once a started process answers 200 at an address.

    Raises:
        TransientError: it ended, or did not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if answers(url, headers):
            return
        time.sleep(0.05)
    raise TransientError(f"{name} did not start", fix="read its log, then run the same command again")


def answers(url: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether an address says 200 within some seconds."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers or {})), timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # urllib's own errors are OSErrors
        return False


def free_port(wanted: int = 0) -> int:
    """A loopback port that nobody listens on now: the wanted one, if that is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])
