"""The benchmark of the core runs from end to end; what it measures is no matter here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "benchmarks.core", "--tiny", "--pairs", "2", "--threads", "1"]


def test_every_line_of_the_table_compares_two_models_that_are_the_same():
    done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.endswith((" met", " MISSED", " VOID"))]
    assert len(lines) == 12 + 8
    assert [line for line in lines if line.endswith("VOID")] == []
