"""The benchmark of the loader runs from end to end on a little data set; what it measures is no matter here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = [
    "--tokens",
    "300000",
    "--shard-tokens",
    "100000",
    "--context-tokens",
    "64",
    "--batch-rows",
    "16",
    "--steps",
    "5",
]


def test_it_names_every_figure_beside_its_bar_and_removes_the_data_set(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.loader", *SMALL]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=170
    )
    lines = done.stdout.splitlines()
    assert done.returncode in (0, 1), done.stderr
    bars = [line for line in lines if re.search(r"\((bar|bars) .*\) (met|MISSED)", line)]
    assert [line.split(":")[0] for line in bars] == [
        "start, cut",
        "start, best_fit",
        "cut, compiled",
        "best_fit, compiled",
    ]
    assert done.returncode == any("MISSED" in line for line in bars)
    rates = [float(line.split(": ")[1].split(" M")[0]) for line in lines if " M tokens/s" in line]
    assert len(rates) == 4
    assert not list(tmp_path.iterdir())
