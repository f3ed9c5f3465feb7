"""One SQLite store for all tracking tests: making its tables takes longer than most tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from foundation_core.tracking.mlflow import MlflowRuns


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a SQLite store."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def open_runs(store_uri: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], MlflowRuns]:
    """Opens this test's own experiment, as each process of a pipeline would: anew every time."""
    return lambda: MlflowRuns(store_uri, tmp_path / "artifacts", request.node.name)
