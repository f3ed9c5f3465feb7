"""`foundation look`: MLflow's pages over the data folder, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from foundation_core.errors import ConfigError


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The port."""
    parser.add_argument("--port", type=int, default=5000, help="loopback port, 5000 if not said")


def run(arguments: argparse.Namespace) -> NoReturn:
    """Become an MLflow server."""
    from cluster.settings import Settings

    settings = Settings.from_environment()
    if not settings.home.is_dir():
        raise ConfigError(f"{settings.home} is not there", fix="run `make run` first, or set FOUNDATION_HOME")
    if settings.tracking_uri.startswith("http"):
        raise ConfigError(f"FOUNDATION_MLFLOW_URI names a server: look at {settings.tracking_uri}")
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    where = ["--host", "127.0.0.1", "--port", str(arguments.port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", settings.mlflow_uri, *where]
    print(f"MLflow at http://127.0.0.1:{arguments.port} (Ctrl-C ends it)")
    sys.stdout.flush()
    os.execve(sys.executable, command, {**os.environ, **environment})
