"""The direction of imports, as pyproject.toml states it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINTER = Path(sys.executable).with_name("lint-imports")


def test_imports_run_one_way() -> None:
    done = subprocess.run([LINTER], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_the_linter_sees_a_wrong_import(tmp_path: Path) -> None:
    """Negative control: the same contracts over a copy in which specs import torch."""
    for package in ("foundation_core", "cluster", "flows"):
        subprocess.run(["cp", "-r", ROOT / package, tmp_path], check=True)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    with open(tmp_path / "foundation_core" / "specs" / "base.py", "a") as specs:
        specs.write("\nimport torch\n")
    command = [LINTER, "--config", str(tmp_path / "pyproject.toml"), "--no-cache"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode != 0
    assert "Specs load in a blink" in done.stdout
