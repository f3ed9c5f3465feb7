"""`foundation runs`, `logs` and `stop`: what ran and runs in a data folder, seen and handled by a person."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.runs import StageRun
    from cluster.settings import Settings
    from foundation_core.tracking.history import PipelineRun

NAME = "a stage (its newest run), the first digits of a key, a Ray job's id: see `foundation runs`"
WORDS = {"FINISHED": "done", "KILLED": "stopped", "FAILED": "failed", "RUNNING": "running"}
"""Our words for MLflow's."""
NOTHING_RUNS = 1


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """How many runs, or which one; which cluster."""
    if name == "runs":
        parser.add_argument("--last", type=int, default=20, help="how many, 20 if not said")
        parser.add_argument("--json", action="store_true", help="for a script")
    else:
        parser.add_argument("name", metavar="RUN_OR_STAGE", help=NAME)
    if name == "logs":
        parser.add_argument("--follow", action="store_true", help="go on until it has ended")
    parser.add_argument("--address", help="a Ray cluster's dashboard, http://HOST:PORT; else FOUNDATION_RAY_ADDRESS")


def run(arguments: argparse.Namespace) -> int:
    """Do what the command says."""
    from cluster.settings import Settings
    from cluster.stack import Stack

    if arguments.address:
        os.environ["FOUNDATION_RAY_ADDRESS"] = arguments.address
    os.environ.update(Stack(Settings.from_environment()).environment())
    settings = Settings.from_environment()
    if arguments.command == "runs":
        return _runs(settings, arguments.last, as_json=arguments.json)
    if arguments.command == "logs":
        return _logs(arguments.name, settings, follow=arguments.follow)
    return _stop(arguments.name, settings)


def _runs(settings: Settings, last: int, *, as_json: bool) -> int:
    """Print the stages, from their folders, and the pipelines, from MLflow, newest first."""
    from cluster.ray_jobs import live_jobs
    from cluster.runs import look, stage_folders
    from foundation_core.errors import FoundationError

    alive: Collection[str] = ()
    try:
        alive = live_jobs(settings.ray_dashboard) if settings.ray_dashboard else ()
    except FoundationError as away:
        print(f"foundation: {away.found}: jobs that nobody follows are not seen", file=sys.stderr)

    def is_alive(stage: str, key: str) -> bool:
        return any(name.startswith(f"{stage}-{key}-") for name in alive)

    rows = [_stage_row(look(folder, is_alive)) for folder in stage_folders(settings.results)[:last]]
    rows += [_pipeline_row(each) for each in _pipelines(settings, last)]
    rows = sorted(rows, key=_latest, reverse=True)[:last]
    if as_json:
        print(json.dumps(rows))
    else:
        _print(rows)
    return 0


def _latest(row: dict[str, Any]) -> float:
    """When something happened there last: what runs is the newest."""
    return float("inf") if row["state"] == "running" else round(float(row["started"] + row["seconds"]), 3)


def _pipelines(settings: Settings, last: int) -> list[PipelineRun]:
    from cluster.embedded import answers
    from cluster.session import EXPERIMENT
    from foundation_core.errors import FoundationError

    if not settings.tracking_uri and not (settings.home / "mlflow.db").exists():
        return []
    uri = settings.mlflow_uri
    try:
        if uri.startswith("http") and not answers(f"{uri}/health"):
            raise FoundationError(f"MLflow does not answer at {uri}")
        from foundation_core.tracking.history import pipeline_runs

        return pipeline_runs(uri, EXPERIMENT, last)
    except FoundationError as away:
        print(f"foundation: {away.found}: pipelines are not seen", file=sys.stderr)
        return []


def _stage_row(run: StageRun) -> dict[str, Any]:
    from flows.summary import summary_row

    score = summary_row(run.result)["scores"] if run.result else ""
    return {
        "kind": "stage", "stage": run.stage, "recipe": run.recipe, "key": run.key, "state": run.state,
        "started": run.started, "seconds": run.seconds, "score": score, "ids": run.ids,
    }  # fmt: skip


def _pipeline_row(run: PipelineRun) -> dict[str, Any]:
    ids = {"mlflow_run": run.run_id, **({"prefect_run": run.prefect_run} if run.prefect_run else {})}
    return {
        "kind": "pipeline", "stage": "", "recipe": run.name, "key": "", "state": WORDS.get(run.status, run.status),
        "started": run.started, "seconds": run.seconds, "score": "", "ids": ids,
    }  # fmt: skip


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False)
    for column in ("run", "recipe", "key", "state", "started", "took", "score", "MLflow run"):
        table.add_column(column, justify="right" if column == "took" else "left", overflow="fold")
    colours = {"done": "green", "running": "cyan", "stopped": "yellow"}
    for row in rows:
        started = f"{datetime.fromtimestamp(row['started']):%m-%d %H:%M:%S}" if row["started"] else ""
        state = f"[{colours.get(row['state'], 'red')}]{row['state']}[/]"
        took = f"{row['seconds']:.1f} s" if row["seconds"] else ""
        run_id = row["ids"].get("mlflow_run", "")[:8]
        table.add_row(
            row["stage"] or "[bold]pipeline[/]", row["recipe"], row["key"], state, started, took, row["score"], run_id
        )
    Console(highlight=False, width=140).print(table)


def _logs(name: str, settings: Settings, *, follow: bool) -> int:
    """Print what a stage said, from its event log; what a job of the cluster printed, if no stage has that name."""
    from cluster.lines import lines_of_a_log
    from cluster.runs import find

    if _is_pipeline_job(name):
        return _job_log(name, settings, follow=follow)
    folder = find(settings.results, name)
    lines = lines_of_a_log()
    for event in _events(folder, settings, follow=follow):
        lines.report(folder.parent.name, event)
    return 0


def _events(folder: Any, settings: Settings, *, follow: bool) -> Iterator[dict[str, Any]]:
    """The events of a stage; if it is followed, also those to come while somebody works there."""
    from cluster.launch import LOOK_SECONDS
    from cluster.stopping import is_running
    from foundation_core.events import read_events

    offset, alive = 0, True
    while alive:
        alive = follow and is_running(folder, settings)  # before reading: its last words are read after it left
        for behind, event in read_events(folder, offset):
            offset = behind
            yield event
        if alive:
            time.sleep(LOOK_SECONDS)


def _job_log(name: str, settings: Settings, *, follow: bool) -> int:
    from cluster.submit import PipelineJobs

    jobs = PipelineJobs(_cluster(settings))
    if follow:
        return jobs.follow(name, lambda text: print(text, end="", flush=True))
    print(jobs.log(name), end="")
    return 0


def _stop(name: str, settings: Settings) -> int:
    """Ask, wait, say what was saved; 1 if nothing of that name runs."""
    from cluster.runs import find, matches
    from cluster.stopping import is_running, stop_stage

    if _is_pipeline_job(name):
        return _stop_job(name, settings)
    if not any(is_running(folder, settings) for folder in matches(settings.results, name)):
        print(f"foundation: nothing runs in {settings.home} that {name!r} names", file=sys.stderr)
        return NOTHING_RUNS
    folder = find(settings.results, name)
    print(f"asked {folder.parent.name} {folder.name} to stop; waiting until it has saved", flush=True)
    end = stop_stage(folder, settings)
    what = end["error"]["found"] if end.get("error") else "it was through before it could stop"
    print(f"{end['status']}: {what}")
    return 0


def _stop_job(name: str, settings: Settings) -> int:
    from cluster.ray_jobs import live_jobs
    from cluster.submit import PipelineJobs

    address = _cluster(settings)
    if name not in live_jobs(address):
        print(f"foundation: {name} does not run at {address}", file=sys.stderr)
        return NOTHING_RUNS
    jobs = PipelineJobs(address)
    jobs.stop(name)
    print(f"asked {name} to stop; waiting until its stage has saved", flush=True)
    jobs.wait(name)
    print("stopped; submit the same recipe again and it continues")
    return 0


def _is_pipeline_job(name: str) -> bool:
    from cluster.submit import PIPELINE_PREFIX

    return name.startswith(PIPELINE_PREFIX)


def _cluster(settings: Settings) -> str:
    from foundation_core.errors import ConfigError

    if not settings.ray_dashboard:
        raise ConfigError("no cluster is named", allowed="--address http://HOST:PORT, or FOUNDATION_RAY_ADDRESS")
    return settings.ray_dashboard
