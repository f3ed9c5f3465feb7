"""What a stack consists of: Prefect and MLflow with their pages, a Ray head with its dashboard, and the runner.

Everything listens on loopback. SQLite and a local folder unless the tools' own variables name a database or a bucket:
PREFECT_API_DATABASE_CONNECTION_URL for Prefect; FOUNDATION_MLFLOW_STORE and FOUNDATION_MLFLOW_ARTIFACTS for MLflow.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster.embedded import JOBS, free_port, prefect_environment, ray_access, ray_head_command
from cluster.settings import Settings
from foundation_core.errors import ConfigError

PORTS = {"prefect": 4200, "mlflow": 5000, "ray": 8265, "runner": 8280}
"""Taken where they are free. FOUNDATION_PREFECT_PORT and so on name others."""


@dataclass(frozen=True)
class Service:
    """A process that answers on a port.

    Args:
        url: what a person opens.
        health: what answers 200 once it works.
        headers: what the request for `health` must bring.
    """

    name: str
    url: str
    health: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def prefect_service(settings: Settings, port: int) -> Service:
    """The Prefect server with its UI, scheduler and database."""
    url = f"http://127.0.0.1:{port}"
    return Service(
        name="prefect",
        url=url,
        health=f"{url}/api/health",
        command=[sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        environment={
            **prefect_environment(settings),
            "PREFECT_SERVER_UI_API_URL": f"{url}/api",  # the UI asks port 4200 otherwise
            "PREFECT_SERVER_UI_ENABLED": "true",
            "PREFECT_API_URL": f"{url}/api",
            "PREFECT_LOGGING_LEVEL": "WARNING",
        },
    )


def mlflow_service(settings: Settings, port: int) -> Service:
    """The MLflow server with its UI; it hands out artifacts itself, so no client needs the store's credentials."""
    url = f"http://127.0.0.1:{port}"
    store = os.environ.get("FOUNDATION_MLFLOW_STORE", f"sqlite:///{settings.home / 'mlflow.db'}")
    artifacts = os.environ.get("FOUNDATION_MLFLOW_ARTIFACTS", str(settings.home / "mlflow-artifacts"))
    return Service(
        name="mlflow",
        url=url,
        health=f"{url}/health",
        command=[
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", store, "--artifacts-destination", artifacts),
        ],
        environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
    )


def ray_service(settings: Settings, port: int) -> Service:
    """A Ray head with its dashboard; nobody without the token runs anything on it."""
    url, token = f"http://127.0.0.1:{port}", ray_token(settings)
    return Service(
        name="ray",
        url=url,
        health=f"{url}/api/version",
        command=ray_head_command(port, ray_folder(settings)),
        environment={**ray_access(token), **JOBS},
        headers={"Authorization": f"Bearer {token}"},
    )


def runner_service(settings: Settings, port: int) -> Service:
    """The process that takes the runs which people start in Prefect's UI."""
    return Service(
        name="runner",
        url=f"http://127.0.0.1:{port}",
        health=f"http://127.0.0.1:{port}/health",
        command=[sys.executable, "-m", "flows.runner"],
        environment={
            "PREFECT_RUNNER_SERVER_HOST": "127.0.0.1",
            "PREFECT_RUNNER_SERVER_PORT": str(port),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        },
    )


SERVICES: Mapping[str, Callable[[Settings, int], Service]] = {
    "prefect": prefect_service,
    "mlflow": mlflow_service,
    "ray": ray_service,
    "runner": runner_service,
}
"""In the order in which they start; the runner comes when the others answer."""


def ray_token(settings: Settings) -> str:
    """The token of this data folder's Ray cluster, made once and readable by its owner alone."""
    path = settings.home / "stack" / "ray-token"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as target:
            target.write(secrets.token_hex(32))
    return path.read_text().strip()


def ray_folder(settings: Settings) -> Path:
    """Ray's own folder: short, since paths of sockets have 107 bytes at the most, and another for each data folder."""
    return Path("/tmp") / f"fnd-{hashlib.sha256(str(settings.home).encode()).hexdigest()[:8]}"


def port_for(name: str, usual: int = 0) -> int:
    """The configured port of a service; else its usual one if that is free; else any that is.

    Args:
        usual: its port, if not the one in `PORTS`.

    Raises:
        ConfigError: what is configured is no port.
    """
    variable = f"FOUNDATION_{name.upper()}_PORT"
    configured = os.environ.get(variable)
    if not configured:
        return free_port(usual or PORTS[name])
    if not configured.isdecimal() or not 0 < int(configured) < 2**16:
        raise ConfigError(f"{variable} is {configured!r}", allowed="a port, 1 to 65535", fix="correct or unset it")
    return int(configured)
