"""The Prefect flow of a sweep: its points one after the other, on one set of parts; a point that fails ends alone."""

from __future__ import annotations

from functools import partial

from prefect import flow
from prefect.runtime import flow_run

from cluster.orphans import owning
from cluster.planning import ROLES
from cluster.session import Report, Session
from cluster.settings import Settings
from cluster.sweep import OpenSweep, Outcome, Point, Sweep, plan_sweep
from flows.artifacts import show_sweep
from flows.mirror import PrefectMirror
from flows.pipeline import reporting, run_stages
from foundation_core.errors import FoundationError, Stopped
from foundation_core.specs import PipelineSpec
from foundation_core.tracking.lineage import result_tags


@flow(name="sweep")
def sweep(recipe: PipelineSpec, over: str, values: list[str], last: str) -> None:
    """A recipe once for each value of a field, up to a stage.

    Args:
        over: dotted name of the field.
        values: as they are written on the command line.
    """
    settings = Settings.from_environment()
    run_sweep(plan_sweep(recipe, over, values, last, settings), settings)


def run_sweep(planned: Sweep, settings: Settings) -> None:
    """Make every point, and record and show how each ended.

    Raises:
        FoundationError: all of them failed.
        Stopped: somebody asked; the same sweep goes on from there.
    """
    this_run = str(flow_run.id)
    with (
        owning(settings, this_run),
        reporting() as (mirror, report),
        OpenSweep(planned, settings, this_run) as opened,
    ):
        outcomes = [_run_point(planned, point, opened, settings, mirror, report) for point in planned.points]
        mirror.show(partial(show_sweep, outcomes, f"{planned.over}, sweep {planned.id}"))
        opened.record(outcomes)


def _run_point(
    planned: Sweep, point: Point, opened: OpenSweep, settings: Settings, mirror: PrefectMirror, report: Report
) -> Outcome:
    name = planned.name(point)
    report("sweep", {"kind": "say", "text": f"{name}, {planned.points.index(point) + 1} of {len(planned.points)}"})
    try:
        with Session(
            point.recipe, settings, point.source_content, report, planned.last, str(flow_run.id), opened.point(point)
        ) as session:
            results = run_stages(session, mirror, planned.last, name)
            outcome = Outcome.of(point.value, results[ROLES["pretrain"]])
            tags = result_tags(results)
            assert outcome.best is not None
            session.note({f"validation/{outcome.best.name}": outcome.best.value}, tags)
    except Stopped:
        raise
    except FoundationError as error:
        outcome = Outcome(point.value, failure=error.found)
    found = outcome.best
    verdict = f"failed: {outcome.failure}" if found is None else f"{found.value:.4f} {found.unit}"
    report("sweep", {"kind": "say", "text": f"{name}: {verdict}"})
    return outcome
