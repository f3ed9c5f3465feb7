"""A group of ranks that measures cases: each a process of its own, one thread, joined by gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.forecast.ranks import Case
from cluster.embedded import free_port

ROOT = Path(__file__).parents[2]


class Run(NamedTuple):
    """What ranks measured.

    Args:
        rates: of rank 0.
        cases: for each case what each rank found.
    """

    rates: dict[str, float]
    cases: list[list[dict[str, Any]]]


def run_ranks(cases: Sequence[Case], ranks: int) -> Run:
    """Start so many ranks on this machine, and hear what each measured of every case."""
    with tempfile.TemporaryDirectory(prefix="bench-forecast-") as name:
        out = Path(name)
        (out / "cases.json").write_text(json.dumps([case._asdict() for case in cases]))
        common = {
            **os.environ, "WORLD_SIZE": str(ranks), "LOCAL_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore",
            "MALLOC_MMAP_THRESHOLD_": "65536",  # a tensor that is gone gives its pages back
        }  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.forecast.ranks", str(out / "cases.json"), name]
        processes = [
            subprocess.Popen(command, cwd=ROOT, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(ranks)
        ]
        try:
            status = [process.wait() for process in processes]
        finally:
            for process in processes:
                process.kill()
        if any(status):
            raise SystemExit(f"the ranks ended with {status}")
        found = [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(ranks)]
    return Run(found[0]["rates"], [list(case) for case in zip(*(rank["cases"] for rank in found), strict=True)])
