"""A Ray cluster of two nodes with a network between them that can be cut: each has an address of its own.

    this machine                              namespace fnd-node
    head, 1 CPU, fnd0 = 10.77.0.1 (bridge) -- veth pair -- fnd0 = 10.77.0.2, a node of 1 CPU

Needs root and `ip`. The interface has one name on both sides, since gloo is told an interface and not an address.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from cluster.embedded import JOBS, Part, free_port, ray_access, wait_until_answers
from cluster.settings import Settings
from tests.support.ray_cluster import ClusterPlace
from tests.support.workplace import Workplace

NAMESPACE, INTERFACE, HOST_END = "fnd-node", "fnd0", "fnd-veth"
HEAD, NODE = "10.77.0.1", "10.77.0.2"


def lacking() -> str:
    """What this machine lacks for it; empty if nothing."""
    if os.getuid() != 0:
        return "root"
    if shutil.which("ip") is None:
        return "the command ip"
    return "" if _ip("netns", "add", "fnd-try") and _ip("netns", "del", "fnd-try") else "network namespaces"


class SeparatedNodes:
    """The cluster.

    Args:
        folder: for the logs.
    """

    def __init__(self, folder: Path) -> None:
        self._short = Path(tempfile.mkdtemp(prefix="fnd-", dir="/tmp"))  # paths of sockets have at most 107 bytes
        self._settings, self.token, dashboard, gcs = Settings(folder), secrets.token_hex(32), free_port(), free_port()
        self.address = f"http://127.0.0.1:{dashboard}"
        self._parts: list[Part] = []
        self._lay_cable()
        start = (
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
            "--disable-usage-stats",
            "--num-cpus=1",
        )
        head = [
            *(*start, "--head", f"--node-ip-address={HEAD}", f"--port={gcs}", f"--temp-dir={self._short / '0'}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        ]
        self._start("head", head)
        wait_until_answers(f"{self.address}/api/version", self._parts[0].process, "Ray", self._header)
        node = [*start, f"--address={HEAD}:{gcs}", f"--node-ip-address={NODE}", f"--temp-dir={self._short / '1'}"]
        self._start("node", ["ip", "netns", "exec", NAMESPACE, *node])
        deadline = time.monotonic() + 180
        while self._living_nodes() < 2:
            assert time.monotonic() < deadline, "the node did not join"
            time.sleep(0.5)

    def place(self, place: Workplace) -> ClusterPlace:
        """A workplace whose commands use this cluster."""
        variables = {"FOUNDATION_RAY_ADDRESS": self.address, **ray_access(self.token)}
        return ClusterPlace(place.home, place.recipe, variables)

    def cut(self) -> None:
        """Let nothing pass between the nodes."""
        assert _ip("link", "set", HOST_END, "down")

    def mend(self) -> None:
        """Let everything pass again."""
        assert _ip("link", "set", HOST_END, "up")

    def end(self) -> None:
        """End both nodes, and take the cable away."""
        for part in reversed(self._parts):
            part.end(at_once=True)
        _ip("netns", "del", NAMESPACE)
        _ip("link", "del", HOST_END)
        _ip("link", "del", INTERFACE)
        shutil.rmtree(self._short, ignore_errors=True)

    @property
    def _header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def _lay_cable(self) -> None:
        inside = ("-n", NAMESPACE)
        for words in (
            ("link", "add", INTERFACE, "type", "bridge"),
            ("addr", "add", f"{HEAD}/24", "dev", INTERFACE),
            ("link", "set", INTERFACE, "up"),
            ("netns", "add", NAMESPACE),
            ("link", "add", HOST_END, "type", "veth", "peer", "name", INTERFACE, "netns", NAMESPACE),
            ("link", "set", HOST_END, "master", INTERFACE),
            ("link", "set", HOST_END, "up"),
            (*inside, "addr", "add", f"{NODE}/24", "dev", INTERFACE),
            (*inside, "link", "set", INTERFACE, "up"),
            (*inside, "link", "set", "lo", "up"),
        ):
            assert _ip(*words), f"ip {' '.join(words)}"

    def _start(self, name: str, command: list[str]) -> None:
        environment = {**ray_access(self.token), **JOBS, "RAY_USAGE_STATS_ENABLED": "0"}
        environment["GLOO_SOCKET_IFNAME"] = INTERFACE
        self._parts.append(Part(name, command, self._settings, environment))

    def _living_nodes(self) -> int:
        answer = httpx.get(f"{self.address}/api/v0/nodes", headers=self._header, timeout=30).raise_for_status()
        return sum(node["state"] == "ALIVE" for node in answer.json()["data"]["result"]["result"])


@contextmanager
def running_separated_nodes(folder: Path) -> Iterator[SeparatedNodes]:
    """The cluster for the block."""
    nodes = SeparatedNodes(folder)
    try:
        yield nodes
    finally:
        nodes.end()


def _ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True).returncode == 0
