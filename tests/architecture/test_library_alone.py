"""The library alone: the README's example runs in one plain process that can import nothing but what it names."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = (
    "numpy", "safetensors", "yaml", "rich", "psutil", "pandas", "sklearn", "matplotlib",
    "ray", "deepspeed", "prefect", "mlflow", "transformers", "cluster", "flows",
)  # fmt: skip
BLOCK = f"""
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_allowed(name, path=None, target=None):
    return None if name.partition(".")[0] in {FORBIDDEN!r} else find(name, path, target)

PathFinder.find_spec = find_allowed
"""


def _example() -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return next(block for block in blocks if "TorchEngine(" in block)


def _texts(folder: Path) -> None:
    folder.mkdir()
    for package in ("asyncio", "email", "unittest"):
        for path in (Path(sysconfig.get_path("stdlib")) / package).glob("*.py"):
            shutil.copy(path, folder / f"{package}-{path.stem}.txt")


def _run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_readme_example_trains_with_nothing_else_installed(tmp_path: Path) -> None:
    _texts(tmp_path / "my_texts")
    done = _run(BLOCK + _example().replace("range(200)", "range(3)"), tmp_path)
    assert done.returncode == 0, done.stderr
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert len(losses) == 3
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["numpy", "mlflow"])
def test_the_block_blocks(name: str, tmp_path: Path) -> None:
    done = _run(f"{BLOCK}\nimport {name}", tmp_path)
    assert f"No module named '{name}'" in done.stderr
