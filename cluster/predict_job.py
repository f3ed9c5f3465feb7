"""The entry point of a Ray job that predicts: `python -m cluster.predict_job JOB.json`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.job import Job, reported
from cluster.pools import RayPool
from cluster.predict import SUMMARY_FILE, Request, predict
from cluster.ray_jobs import join_cluster
from cluster.stop import StopFile
from foundation_core.errors import Stopped
from foundation_core.events import EventLog
from foundation_core.files import write_json


def main(path: Path) -> int:
    """Predict as the job says; the exit status."""
    job = Job.read(path)
    folder = Path(job.folder)
    events, stop = EventLog(folder), StopFile(folder)
    stop.request_on_signals()

    def report(rows: int) -> None:
        events.progress(rows, 0, "rows")
        if stop.requested():
            raise Stopped(f"predict stopped after {rows} rows; nothing was written", fix="run the same command again")

    def work() -> None:
        import ray

        join_cluster(folder)
        workers = max(1, int(ray.cluster_resources().get("CPU", 1)))

        def map_in_order(function: Callable[[Any], Any], pieces: Iterable[Any]) -> Iterator[Any]:
            return RayPool().map_in_order(function, pieces, workers)

        summary = predict(Request(**job.spec), map_in_order, report)
        write_json(folder / SUMMARY_FILE, asdict(summary))

    return reported(events, work)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
