"""The Prefect flows: the whole pipeline, and one for each stage. A flow is an order of stages; it holds no data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run

from cluster.orphans import owning
from cluster.planning import INPUTS, ROLES, source_content_of
from cluster.preflight import checked_plan, preflight_cluster
from cluster.session import Report, Session
from cluster.settings import Settings
from flows.artifacts import (
    ProgressBars,
    show_card,
    show_failures,
    show_links,
    show_pictures,
    show_plan,
    show_results,
)
from flows.console import current_console
from flows.mirror import PrefectMirror
from flows.pauses import pausable
from foundation_core.specs import PipelineSpec
from foundation_core.store import Result


@flow(name="pipeline")
def pipeline(recipe: PipelineSpec, source_content: str = "") -> None:
    """Raw files -> corpus -> trunk -> task models -> scores -> registered version, or as far as the recipe goes.

    Args:
        source_content: content hash of the raw files, as in every flow here; looked for, if not said.
    """
    run_until(recipe, source_content, recipe.last)


@flow(name="ingest")
def ingest(recipe: PipelineSpec, source_content: str = "") -> None:
    """Raw files -> corpus."""
    run_until(recipe, source_content, "ingest")


@flow(name="pretrain")
def pretrain(recipe: PipelineSpec, source_content: str = "") -> None:
    """Corpus -> trunk; the corpus is made first where it is not there."""
    run_until(recipe, source_content, "pretrain")


@flow(name="finetune")
def finetune(recipe: PipelineSpec, source_content: str = "") -> None:
    """Trunk -> task models; what comes before is made first where it is not there."""
    run_until(recipe, source_content, "finetune")


@flow(name="evaluate")
def evaluate(recipe: PipelineSpec, source_content: str = "") -> None:
    """Models -> scores; what comes before is made first where it is not there."""
    run_until(recipe, source_content, "evaluate")


@flow(name="publish")
def publish(recipe: PipelineSpec, source_content: str = "") -> None:
    """Models and scores -> registered version; what comes before is made first where it is not there."""
    run_until(recipe, source_content, "publish")


def run_until(recipe: PipelineSpec, source_content: str, last: str) -> None:
    """Run the stages in order up to one of them."""
    with open_session(recipe, source_content, last) as (session, mirror):
        results = run_stages(session, mirror, last)
        mirror.show(partial(show_results, results.values()))


def run_stages(session: Session, mirror: PrefectMirror, last: str, label: str = "") -> dict[str, Result]:
    """The results of the stages up to one of them, by role.

    Args:
        label: stands behind the stage in the name of its task run in Prefect.
    """
    results: dict[str, Result] = {}
    behind = f" {label}".replace("{", "{{").replace("}", "}}").rstrip()  # the name is a format to Prefect
    for stage, roles in INPUTS.items():
        task_run = run_stage.with_options(task_run_name="{stage}" + behind)
        try:
            results[ROLES[stage]] = task_run(session, stage, **{role: results[role] for role in roles})
        except Exception:
            if session.at_work is not None:
                mirror.show(partial(show_failures, stage, session.at_work))
            raise
        made = results[ROLES[stage]]
        for show in (  # here: what a task shows stands far down on the run's page
            partial(show_links, made, session.settings),
            partial(show_pictures, made, session.settings),
            partial(show_card, made),
            partial(show_failures, stage, made.folder),
        ):
            mirror.show(show)
        if stage == last:
            break
    return results


@task(task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(session: Session, stage: str, **inputs: Result) -> Result:
    """One stage, as one Prefect task. Our own keys decide what is reused; two caches would disagree."""
    return session.run(stage, inputs)


@contextmanager
def open_session(
    recipe: PipelineSpec, source_content: str, last: str = "publish"
) -> Iterator[tuple[Session, PrefectMirror]]:
    """The parts that a run up to a stage needs, tied to this Prefect flow run."""
    settings = Settings.from_environment()
    content = source_content or source_content_of(recipe, settings.results)
    steps, found = checked_plan(recipe, settings, content, last)
    preflight_cluster(recipe, settings, steps)
    run_id = str(flow_run.id)
    with (
        owning(settings, run_id),
        reporting() as (mirror, report),
        Session(recipe, settings, content, report, last, run_id) as session,
        pausable(UUID(run_id), session.stop) if deployment.id else nullcontext(),  # nobody would resume another run
    ):
        mirror.show(partial(show_plan, recipe, steps, found))
        yield session, mirror


@contextmanager
def reporting() -> Iterator[tuple[PrefectMirror, Report]]:
    """What tells the terminal, the bars on the run's page and Prefect's log of every event of a stage."""
    log, console = get_run_logger(), current_console()
    with PrefectMirror(console.report) as mirror, ProgressBars() as bars:

        def report(stage: str, event: dict[str, Any]) -> None:
            console.report(stage, event)
            bars.report(stage, event)
            if event["kind"] == "launch":
                mirror.begin(stage, Path(event["folder"]))
            elif event["kind"] == "reused":
                mirror.catch_up(stage, Path(event["folder"]))
            elif event["kind"] == "say" and "time" not in event:  # the session's own word; the record has a time
                log.info("%s: %s", stage, event["text"])

        yield mirror, report
