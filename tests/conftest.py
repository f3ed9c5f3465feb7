"""What every test may use: one thread, and a stage's surroundings without processes, servers or a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from foundation_core.alone import alone
from foundation_core.stages.contract import Context

pytest_plugins = [
    "tests.support.pipeline",
    "tests.support.tiny",
    "tests.support.published",
    "tests.support.ray_cluster",
    "tests.support.stack",
    "tests.support.browser",
    "tests.support.shown",
]
torch.set_num_threads(1)
# The same examples in every run, and no clock: a busy machine is not a bug.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def serial_context() -> Callable[..., Context]:
    """Builds a Context around a folder; keywords replace its parts (pool, stop, engine, rank, world...)."""

    def build(folder: Path, **parts: Any) -> Context:
        return replace(alone(folder), **parts)

    return build


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Finds a file or folder of real data that lies beside the checkout; the test is left out where it does not."""
    folder = Path(__file__).parents[2] / "shared" / "data"

    def find(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"there is no {name} in {folder}")
        return folder / name

    return find
