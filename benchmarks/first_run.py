"""What a newcomer waits for: `python -m benchmarks.first_run`.

Clones this repository into a temporary folder and runs `make run` three times: fresh (no .venv, no data), warm (the
data folder removed) and unchanged. Prints the wall time of each, where it went, and the memory (PSS) of all processes.

    warm = work of the local stages                     what each says of itself
         + start of each Ray job to its first step      RAY_STAGES
         + first step to the end of that job
         + other orchestration                          all that is left: services up, jobs handed over, services down
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from cluster.system_metrics import pss_bytes

ROOT = Path(__file__).parents[1]
SAMPLE_SECONDS = 1.0
RAY_STAGES = ("pretrain", "finetune")
FIRST_STEP = ("progress", "trial")
BARS = {"fresh": 480.0, "warm": 300.0, "unchanged": 6.0, "job": 35.0, "other": 12.0, "memory": 8e9}


@dataclass
class Memory:
    """Samples the PSS of a process and all that descends from it or works for its data folder."""

    home: Path
    peak_bytes: int = 0
    _done: threading.Event = field(default_factory=threading.Event)

    def sample_until_done(self) -> None:
        """Look once a second."""
        while not self._done.wait(SAMPLE_SECONDS):
            alive = [process for process in psutil.process_iter() if _works_for(process, self.home)]
            self.peak_bytes = max(self.peak_bytes, sum(map(pss_bytes, alive)))

    def stop(self) -> None:
        """Stop looking."""
        self._done.set()


def _works_for(process: psutil.Process, home: Path) -> bool:
    try:
        return process.environ().get("FOUNDATION_HOME") == str(home)
    except psutil.Error:
        return False


def make_run(clone: Path) -> tuple[float, int]:
    """Wall seconds and peak PSS of one `make run`."""
    memory = Memory(clone / "data")
    watcher = threading.Thread(target=memory.sample_until_done)
    watcher.start()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOUNDATION_")}
    start = time.monotonic()
    try:
        subprocess.run(["make", "run"], cwd=clone, check=True, env=environment)
    finally:
        seconds = time.monotonic() - start
        memory.stop()
        watcher.join()
    return seconds, memory.peak_bytes


class StageSeconds(NamedTuple):
    """Where the time of a stage went; a local stage waits for nothing that is its own."""

    to_first_step: float
    work: float


def stage_seconds(clone: Path) -> dict[str, StageSeconds]:
    """The time of each stage, from its result and its event log."""
    found = {}
    for path in (clone / "data" / "results").glob("*/*/result.json"):
        result = json.loads(path.read_text())
        events = [json.loads(line) for line in (path.parent / "events.jsonl").read_text().splitlines()]
        seconds = StageSeconds(0.0, result["seconds"])
        if result["stage"] in RAY_STAGES:
            start = next(event["time"] for event in events if event["kind"] == "start")
            first = next(event["time"] for event in events if event["kind"] in FIRST_STEP)
            seconds = StageSeconds(first - start, events[-1]["time"] - first)
        found[result["stage"]] = seconds
    return found


def main() -> int:
    """Measure and print; 1 if a bar is missed."""
    print(f"machine: {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="first-run-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        fresh, fresh_memory = make_run(clone)
        subprocess.run(["rm", "-rf", clone / "data"], check=True)
        warm, warm_memory = make_run(clone)
        stages = stage_seconds(clone)
        unchanged, _ = make_run(clone)
    waits = {stage: stages[stage].to_first_step for stage in RAY_STAGES}
    other = warm - sum(sum(seconds) for seconds in stages.values())
    rows = [
        ("fresh clone to registered model", fresh, BARS["fresh"], "s"),
        ("again after removing the data folder", warm, BARS["warm"], "s"),
        ("unchanged", unchanged, BARS["unchanged"], "s"),
        *((f"Ray job start to first step, {stage}", wait, BARS["job"], "s") for stage, wait in waits.items()),
        ("other orchestration, warm", other, BARS["other"], "s"),
        ("memory of all processes (PSS)", max(fresh_memory, warm_memory) / 1e9, BARS["memory"] / 1e9, "GB"),
    ]
    for stage in ("ingest", "pretrain", "finetune", "evaluate", "publish"):
        print(f"  {stage:<10} to the first step {stages[stage].to_first_step:5.1f} s, work {stages[stage].work:6.1f} s")
    for name, value, bar, unit in rows:
        print(f"{name:<44} {value:7.1f} {unit:<3} (bar {bar:.0f}) {'met' if value <= bar else 'MISSED'}")
    return int(any(value > bar for _, value, bar, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
