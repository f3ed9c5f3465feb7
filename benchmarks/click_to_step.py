"""From the click on *Submit* to the first optimizer step, on a warm stack: `python -m benchmarks.click_to_step`.

Starts the services over a data folder of its own, makes the quickstart's corpus, starts `pretrain` as its form does,
with another seed each time, and prints where the time of each went.

    created -> claimed   the runner polls, once a second
    -> running           a process that imports Prefect and the flows
    -> launched          recipe, plan, MLflow and the lease
    -> workers ready     Ray starts the driver of the job and the workers, which import torch and DeepSpeed
    -> first step        the model is built, one step is trained
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from cluster.settings import Settings, usable_cpus
from cluster.stack import Stack

RUNS = 3
STEPS = 2
BAR_SECONDS = 25.0
BUSY = 503
RECIPES = Path(__file__).parents[1] / "recipes"


def main() -> int:
    """Measure and print; 1 if the median misses the bar."""
    with tempfile.TemporaryDirectory(prefix="click-") as folder:
        os.environ |= {"FOUNDATION_HOME": folder, "FOUNDATION_RECIPES": str(RECIPES)}
        stack = Stack(Settings.from_environment())
        try:
            stack.up(print)
            url = f"{stack.environment()['PREFECT_API_URL']}"
            _start(url, "ingest")
            found = [_timeline(Path(folder), url, seed) for seed in range(1, RUNS + 1)]
        finally:
            stack.down(print)
    print(f"machine: {usable_cpus()} CPUs, Python {sys.version.split()[0]}, commit {_commit()}")
    for name in found[0]:
        print(f"{name:<24} {'  '.join(f'{times[name]:6.1f}' for times in found)} s")
    median = statistics.median(times["click to first step"] for times in found)
    print(f"median {median:.1f} s (bar {BAR_SECONDS:.0f}) {'met' if median <= BAR_SECONDS else 'MISSED'}")
    return int(median > BAR_SECONDS)


def _start(url: str, flow: str, **parameters: Any) -> dict[str, Any]:
    """Start a deployment and wait for its end; the flow run."""
    deployment = httpx.get(f"{url}/deployments/name/{flow}/{flow}").raise_for_status().json()["id"]
    body = {"parameters": {"recipe": "quickstart", **parameters}}
    while (made := httpx.post(f"{url}/deployments/{deployment}/create_flow_run", json=body)).status_code == BUSY:
        time.sleep(0.5)  # Prefect's SQLite is written by somebody else at the moment
    run = made.raise_for_status().json()
    while run["state"]["type"] not in ("COMPLETED", "FAILED", "CRASHED"):
        time.sleep(0.5)
        run = httpx.get(f"{url}/flow_runs/{run['id']}").raise_for_status().json()
    if run["state"]["type"] != "COMPLETED":
        raise SystemExit(f"{flow} ended as {run['state']['name']}: {run['state']['message']}")
    return dict(run)


def _timeline(home: Path, url: str, seed: int) -> dict[str, float]:
    """Seconds from one mark to the next of one run."""
    run = _start(url, "pretrain", steps=STEPS, others=f"--pretrain.seed {seed}")
    states = httpx.get(f"{url}/flow_run_states/", params={"flow_run_id": run["id"]}).raise_for_status().json()
    entered = {state["type"]: datetime.fromisoformat(state["timestamp"]).timestamp() for state in reversed(states)}
    jobs = (home / "results" / "pretrain").glob("*/job.json")
    folder = next(path.parent for path in jobs if json.loads(path.read_text())["spec"]["seed"] == seed)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    launched = next(event["time"] for event in events if event["kind"] == "start")
    training = next(event["time"] for event in events if event["kind"] == "phase")
    first = next(event["time"] for event in events if event["kind"] == "progress")
    created = datetime.fromisoformat(run["created"]).timestamp()
    marks = [created, entered["PENDING"], entered["RUNNING"], launched, training, first]
    names = ["created to claimed", "to running", "to launched", "to workers ready", "to first step"]
    spans = {name: end - begin for name, begin, end in zip(names, marks, marks[1:], strict=False)}
    return {**spans, "click to first step": first - created}


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
