"""What a run shows on its page in Prefect: the plan, progress that moves, links into MLflow and Ray, the results."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from cluster.planning import Step
from cluster.settings import Settings
from cluster.sweep import Outcome
from flows.summary import summary_row, sweep_rows
from foundation_core.store import Result

UPDATE_SECONDS = 2.0
"""Seconds between two movements of a bar: each is a call of the API."""


class ProgressArtifact:
    """The bar of one stage; it begins with the first progress that the stage reports."""

    def __init__(self) -> None:
        self._id: UUID | None = None
        self._next_update = 0.0
        self._phase = ""

    def report(self, stage: str, event: dict[str, Any]) -> None:
        """Move the bar, if the event says how far the stage is and the last movement was long enough ago."""
        if event["kind"] == "phase":
            self._phase = event["name"]
        if event["kind"] != "progress":
            return
        done, total, now = event["done"], event["total"], time.monotonic()
        if now < self._next_update and done < total:
            return
        self._next_update = now + UPDATE_SECONDS
        text = f"{stage} · {self._phase}: {done} of {total} {event['unit']}  {event['note']}".rstrip()
        percent = 100.0 * done / total
        if self._id is None:
            created = create_progress_artifact(percent, key=f"{stage}-progress", description=text)
            assert isinstance(created, UUID)
            self._id = created
        else:
            update_progress_artifact(self._id, progress=percent, description=text)


def show_plan(steps: Iterable[Step], last: str) -> None:
    """What will be reused and what will run up to a stage, and why."""
    rows = ["| stage | | why |", "| --- | --- | --- |"]
    for step in steps:
        what, why = ("reuse", "found by its key") if step.result is not None else ("run", "; ".join(step.reasons))
        rows.append(f"| {step.stage} | {what} | {why} |")
        if step.stage == last:
            break
    create_markdown_artifact("\n".join(rows), key="plan", description="What this run will do")


def show_links(result: Result, settings: Settings) -> None:
    """Where to look on: the stage's run in MLflow, and its job in Ray's dashboard."""
    run, job = result.ids.get("mlflow_run"), result.ids.get("ray_job")
    if run and settings.tracking_uri.startswith("http"):
        _link(f"{result.stage} in MLflow", f"{settings.tracking_uri}/#/runs/{run}", f"{result.stage}-mlflow")
    if job and settings.ray_dashboard:
        _link(f"{result.stage} in Ray", f"{settings.ray_dashboard}/#/jobs/{job}", f"{result.stage}-ray")


def _link(text: str, address: str, key: str) -> None:
    """A link that works on the artifact's card already, since its description is one too."""
    create_link_artifact(address, link_text=text, key=key, description=f"[{text}]({address})")


def show_sweep(outcomes: Sequence[Outcome], name: str) -> None:
    """The table of a sweep that the command line prints at the end."""
    create_table_artifact(sweep_rows(outcomes), key="sweep", description=f"{name}, the best first")


def show_results(results: Iterable[Result]) -> None:
    """The table that the command line prints at the end."""
    rows = [summary_row(result) for result in results]
    create_table_artifact(rows, key="results", description="What was made, and how good it is")
