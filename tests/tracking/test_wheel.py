"""What a fresh environment is told to install."""

from __future__ import annotations

import zipfile
from importlib.metadata import version
from pathlib import Path

from foundation_core.tracking.wheel import build_wheel, pinned


def test_the_wheel_holds_the_code_that_runs_and_nothing_else(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    assert wheel is not None
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        source = Path(__file__).parents[2] / "foundation_core/tracking/pyfunc.py"
        assert archive.read("foundation_core/tracking/pyfunc.py") == source.read_bytes()
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "foundation_core", "cluster", "flows", "foundation_pipeline",
    }  # fmt: skip


def test_the_same_source_gives_the_same_wheel(tmp_path: Path) -> None:
    first, second = (build_wheel(tmp_path / name) for name in ("first", "second"))
    assert first is not None
    assert second is not None
    assert first.read_bytes() == second.read_bytes()


def test_libraries_are_pinned_to_versions_that_every_index_knows() -> None:
    requirements = dict(line.split("==") for line in pinned())
    assert {"mlflow", "torch", "tokenizers", "safetensors", "pandas"} <= set(requirements)
    assert not any("+" in pin for pin in requirements.values())
    assert all(version(name).startswith(pin) for name, pin in requirements.items())
