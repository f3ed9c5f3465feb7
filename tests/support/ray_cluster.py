"""Ray nodes of this machine, started by Ray's own command line: a cluster of two, or one more for that of a stack."""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cluster.embedded import JOBS, Part, free_port, ray_access, ray_head_command, wait_until_answers
from cluster.services import ray_folder, ray_token
from cluster.settings import Settings
from tests.support.workplace import Workplace


@dataclass(frozen=True)
class ClusterPlace(Workplace):
    """A workplace whose commands have more variables."""

    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a command runs with."""
        return {**super().environment, **self.variables}


class TwoNodes:
    """A head and a second node, of one CPU each; nobody without the token runs anything there.

    Args:
        folder: for the logs.
    """

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_hex(32)
        self._settings, self._gcs = Settings(folder), free_port()
        self._environment = {**ray_access(self.token), **JOBS, "RAY_USAGE_STATS_ENABLED": "0"}
        self._short = Path(tempfile.mkdtemp(prefix="fnd-", dir="/tmp"))  # paths of sockets have at most 107 bytes
        dashboard = free_port()
        self.address = f"http://127.0.0.1:{dashboard}"
        self._parts = [self._start("head", ray_head_command(dashboard, self._short / "0", port=self._gcs, cpus=1))]
        self.add_node()

    @property
    def gcs_address(self) -> str:
        """Where other nodes, and drivers, join."""
        return f"127.0.0.1:{self._gcs}"

    def place(self, place: Workplace) -> ClusterPlace:
        """A workplace whose commands use this cluster."""
        variables = {"FOUNDATION_RAY_ADDRESS": self.address, **ray_access(self.token)}
        return ClusterPlace(place.home, place.recipe, variables)

    def jobs(self) -> list[dict[str, Any]]:
        """Every job that was submitted."""
        found: list[dict[str, Any]] = self._ask("/api/jobs/").json()
        return found

    def add_node(self) -> None:
        """Start another node, and wait until the cluster has two that live."""
        wait_until_answers(f"{self.address}/api/version", self._parts[0].process, "Ray", self._header)
        number = len(self._parts)
        command = _node_command(self.gcs_address, self._short / str(number), cpus=1)
        self._parts.append(self._start(f"node-{number}", command))
        _wait_for_nodes(self.address, self._header, lambda count: count >= 2)

    def kill_node(self) -> None:
        """End the newest node's raylet by SIGKILL."""
        _raylet_of(self._parts[-1]).kill()

    def ask_node_to_leave(self) -> None:
        """Send SIGTERM to the newest node's `ray start`, as a machine that is shut down does."""
        guard = psutil.Process(self._parts[-1].process.pid)
        (start,) = guard.children()
        start.terminate()

    def end(self) -> None:
        """End all nodes, the head last."""
        for part in reversed(self._parts):
            part.end(at_once=True)
        shutil.rmtree(self._short, ignore_errors=True)

    @property
    def _header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def _start(self, name: str, command: list[str]) -> Part:
        return Part(name, command, self._settings, self._environment)

    def _ask(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.address}{path}", headers=self._header, timeout=30).raise_for_status()


class JoinedNode:
    """Another node of the Ray cluster of a stack that is up, until `end`.

    Args:
        home: the stack's data folder, for which its workers count as working.
        url: of the stack's Ray.
        cpus: that it offers.
    """

    def __init__(self, home: Path, url: str, cpus: int) -> None:
        settings, self._url = Settings(home), url
        token = ray_token(settings)
        self._header = {"Authorization": f"Bearer {token}"}
        self._short = Path(tempfile.mkdtemp(prefix="fnd-", dir="/tmp"))  # paths of sockets have at most 107 bytes
        gcs_address = (ray_folder(settings) / "ray_current_cluster").read_text().strip()
        environment = {**ray_access(token), "RAY_USAGE_STATS_ENABLED": "0", "FOUNDATION_HOME": str(home)}
        environment["CUDA_VISIBLE_DEVICES"] = ""
        self._part = Part("joined-node", _node_command(gcs_address, self._short, cpus), settings, environment)
        _wait_for_nodes(url, self._header, lambda count: count >= 2)

    @property
    def is_alive(self) -> bool:
        """Whether it is still of use: it ends with its raylet, and with the cluster that it joined."""
        return self._part.process.poll() is None

    @property
    def raylet(self) -> psutil.Process:
        """Its raylet."""
        return _raylet_of(self._part)

    def end(self) -> None:
        """End all that it started, and wait until the cluster knows."""
        self._part.end(at_once=True)
        shutil.rmtree(self._short, ignore_errors=True)
        _wait_for_nodes(self._url, self._header, lambda count: count < 2)


def _node_command(gcs_address: str, folder: Path, cpus: int) -> list[str]:
    """The command that is a node of a cluster.

    Args:
        folder: its own: nodes that shared one would unpack the same job into the same place, one over the other.
    """
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
        *(f"--address={gcs_address}", "--node-ip-address=127.0.0.1", f"--num-cpus={cpus}"),
        *(f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={folder}"),
    ]


def _raylet_of(part: Part) -> psutil.Process:
    below = psutil.Process(part.process.pid).children(recursive=True)
    return next(process for process in below if process.name() == "raylet")


def _wait_for_nodes(address: str, header: Mapping[str, str], enough: Callable[[int], bool]) -> None:
    """Return once a cluster has the number of living nodes that is wanted."""
    deadline = time.monotonic() + 300
    while not enough(count := _living_nodes(address, header)):
        assert time.monotonic() < deadline, f"the cluster has {count} nodes"
        time.sleep(0.2)


def _living_nodes(address: str, header: Mapping[str, str]) -> int:
    try:
        answer = httpx.get(f"{address}/api/v0/nodes", headers=dict(header), timeout=30).raise_for_status()
    except httpx.HTTPError:  # a dashboard that is being started breaks connections off, or knows nothing yet
        return 0
    return sum(node["state"] == "ALIVE" for node in answer.json()["data"]["result"]["result"])


@contextmanager
def running_two_nodes(folder: Path) -> Iterator[TwoNodes]:
    """A cluster for the block."""
    nodes = TwoNodes(folder)
    try:
        yield nodes
    finally:
        nodes.end()


@pytest.fixture(scope="session")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    """One such cluster for all tests that leave it as it is."""
    with running_two_nodes(tmp_path_factory.mktemp("nodes")) as nodes:
        yield nodes
