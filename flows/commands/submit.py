"""`foundation submit`: a recipe as one job of a Ray cluster, seen by the person who sent it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.recipes import find_recipe, take_recipe
from foundation_core.errors import ConfigError

if TYPE_CHECKING:
    from cluster.submit import PipelineJobs
    from foundation_core.recipe import Overrides
    from foundation_core.specs import PipelineSpec


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """A recipe and any of its fields; which cluster, and what is there."""
    take_recipe(parser)
    parser.usage = (
        f"{parser.prog} RECIPE [--address URL] [--home FOLDER] [--no-wait] [--installed] [--dotted.field ...]"
    )
    parser.add_argument("--address", help="the cluster's dashboard, http://HOST:PORT; else FOUNDATION_RAY_ADDRESS")
    parser.add_argument("--home", type=Path, help="data folder of the job; all nodes see it under this path")
    parser.add_argument("--no-wait", action="store_true", help="print the job's id and leave")
    parser.add_argument("--installed", action="store_true", help="the cluster has this project: send the recipe alone")


def run(arguments: argparse.Namespace) -> int:
    """Send the job, follow it; its exit status."""
    from cluster.planning import INPUTS, Step
    from cluster.preflight import check_recipe, preflight_cluster
    from cluster.settings import Settings
    from cluster.stack import Stack
    from cluster.submit import PipelineJobs
    from foundation_core.recipe import load_recipe

    if arguments.address:
        os.environ["FOUNDATION_RAY_ADDRESS"] = arguments.address
    os.environ.update(Stack(Settings.from_environment()).environment())
    settings = Settings.from_environment()
    if arguments.home:
        settings = replace(settings, home=arguments.home.absolute())
    path = find_recipe(arguments.recipe)
    recipe = load_recipe(path, arguments.overrides)
    check_recipe(recipe)
    if not settings.ray_dashboard:
        raise ConfigError(
            "no cluster is named",
            allowed="--address http://HOST:PORT, or FOUNDATION_RAY_ADDRESS, or a data folder whose services are up",
            fix="name one, or say `foundation up` first",
        )
    preflight_cluster(recipe, settings, [Step(stage, None, None) for stage in INPUTS])
    jobs = PipelineJobs(settings.ray_dashboard)
    words = _words(arguments.overrides, recipe)
    job_id = jobs.submit(path, words, recipe.name, settings, installed=arguments.installed)
    where = f"--address {arguments.address} " if arguments.address else ""
    print(f"{job_id} is on its way to {settings.ray_dashboard}; data folder {settings.home}", flush=True)
    print(f"foundation logs {where}--follow {job_id}    foundation stop {where}{job_id}", flush=True)
    return 0 if arguments.no_wait else _follow(jobs, job_id)


def _words(overrides: Overrides, recipe: PipelineSpec) -> Sequence[str]:
    """The fields that the job gets; a recipe's paths are meant from here, and the job works elsewhere."""
    words, ingest = [word for name, value in overrides for word in (f"--{name}", value)], recipe.ingest
    for name, path in (("source", ingest.source.path), ("tokenizer", ingest.tokenizer.path)):
        words += [f"--ingest.{name}.path", _absolute(path)] if path else []
    if ingest.decontamination.sets:
        sets = [{**one.model_dump(), "path": _absolute(one.path)} for one in ingest.decontamination.sets]
        words += ["--ingest.decontamination.sets", json.dumps(sets)]
    return words


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _follow(jobs: PipelineJobs, job_id: str) -> int:
    def write(text: str) -> None:
        print(text, end="", flush=True)

    try:
        return jobs.follow(job_id, write)
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            print(f"foundation: {job_id} goes on; `foundation stop {job_id}` ends it", file=sys.stderr)
            return 130
    if input("\nstop the job too? [y/N] ").strip().lower() not in ("y", "yes"):
        print(f"{job_id} goes on; `foundation logs --follow {job_id}` shows it again")
        return 130
    jobs.stop(job_id)
    return jobs.wait(job_id)
