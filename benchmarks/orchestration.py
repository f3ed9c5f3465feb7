"""What orchestration costs a training of ten minutes: `python -m benchmarks.orchestration [--seconds S] [--workers N]`.

On services that are up, `foundation pretrain` trains the quickstart's model for so many seconds. Then the same library
code trains the same steps in as many plain processes, as `torchrun` would start them: the same DeepSpeed engine, no
Prefect, no Ray, no MLflow. Each time is of the whole command, imports and all.

With as many workers as there are CPUs, the services take their time from the workers; with one fewer, they have a CPU
for themselves, as on a cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.embedded import free_port
from cluster.job import Job
from cluster.launch import KEEP_MEMORY
from cluster.settings import Settings, usable_cpus
from cluster.stack import Stack
from foundation_core.store import load_result

SECONDS = 600.0
BAR = 0.03
RECIPES = Path(__file__).parents[1] / "recipes"


def main(seconds: float, workers: int) -> int:
    """Measure and print; 1 if the bar is missed."""
    knobs = {"steps": 20_000, "max_seconds": seconds, "workers": workers}
    arguments = [word for name, value in knobs.items() for word in (f"--pretrain.{name}", str(value))]
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder:
        os.environ |= {"FOUNDATION_HOME": folder, "FOUNDATION_RECIPES": str(RECIPES)}
        stack = Stack(Settings.from_environment())
        try:
            stack.up(print)
            _foundation("ingest", "quickstart")
            orchestrated = _foundation("pretrain", "quickstart", *arguments)
        finally:
            stack.down(print)
        (path,) = (Path(folder) / "results" / "pretrain").glob("*/job.json")
        trained = load_result(path.parent).summary
        bare = _bare(Job.read(path), Path(folder) / "bare", trained, workers)
        by_hand = json.loads((Path(folder) / "bare" / "summary.json").read_text())
    cost = (orchestrated - bare) / bare
    print(f"machine: {usable_cpus()} CPUs, Python {sys.version.split()[0]}")
    print(f"{trained['steps']} steps of the quickstart, workers: {workers}")
    for name, wall, summary in (("foundation pretrain", orchestrated, trained), ("plain processes", bare, by_hand)):
        steady, training = summary["tokens_per_second"], summary["training_seconds"]
        print(f"{name:<20} {wall:7.1f} s in all, {training:7.1f} s of training, {steady:8,.0f} tokens/s")
    print(f"cost {orchestrated - bare:+.1f} s, {cost:+.1%} (bar {BAR:.0%}) {'met' if cost <= BAR else 'MISSED'}")
    return int(cost > BAR)


def _foundation(*arguments: str) -> float:
    """Seconds that a command took."""
    start = time.perf_counter()
    subprocess.run([str(Path(sys.executable).with_name("foundation")), *arguments], check=True)
    return time.perf_counter() - start


def _bare(job: Job, folder: Path, trained: Mapping[str, Any], workers: int) -> float:
    """Seconds that the same steps take in plain processes."""
    budget = {"max_seconds": None, "max_tokens": trained["trained_tokens"], "precision": trained["precision"]["name"]}
    return bare_processes(job, folder, budget, workers)


def bare_processes(job: Job, folder: Path, change: Mapping[str, Any], workers: int) -> float:
    """Seconds that a job's stage takes in plain processes, with some fields of its spec changed."""
    path = replace(job, folder=str(folder), spec={**job.spec, **change}).write()
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(workers)}
    environment = os.environ | KEEP_MEMORY | meeting
    command = [sys.executable, "-m", "benchmarks.orchestration", "--rank", str(path)]
    start = time.perf_counter()
    ranks = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(workers)
    ]
    if sum(rank.wait() for rank in ranks):
        raise SystemExit("a plain process failed")
    return time.perf_counter() - start


def _rank(path: Path) -> int:
    """One of the plain processes."""
    import torch

    from cluster.deepspeed_engine import engine_factory
    from cluster.job import call_stage
    from foundation_core.alone import alone
    from foundation_core.events import SilentLog
    from foundation_core.files import write_json
    from foundation_core.tracking.base import NullTracker

    job, rank, world = Job.read(path), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo")
    torch.set_num_threads(job.spec["threads_per_worker"])
    engine = engine_factory(job.spec["engine"], job.spec["zero_stage"])
    context = replace(alone(Path(job.folder)), engine=engine, rank=rank, world=world)
    if rank:
        context = replace(context, events=SilentLog(), tracker=NullTracker())
    result = call_stage(job, context)
    if rank == 0:
        write_json(Path(job.folder) / "summary.json", result.summary)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the training")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    sys.exit(_rank(given.rank) if given.rank else main(given.seconds, given.workers))
