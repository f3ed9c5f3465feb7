"""What a run shows on its page in Prefect: the plan, progress that moves, links into MLflow and Ray, the results."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from cluster.forecast import Forecast
from cluster.planning import Step
from cluster.settings import Settings
from cluster.sweep import Outcome
from flows.planned import plan_markdown
from flows.summary import failure_rows, summary_row, sweep_rows
from foundation_core.events import read_events
from foundation_core.pages.card import CARD_FOLDER, MARKDOWN_FILE
from foundation_core.specs import PipelineSpec
from foundation_core.store import Result

UPDATE_SECONDS = 2.0
"""Seconds between two movements of a bar: each is a call of the API."""
LAST_WORD_SECONDS = 5.0
PICTURES = {
    "loss.png": "How the loss fell in pretraining",
    "transfer.png": "What pretraining gained: each arm's scores on the test",
}
"""Of the plots of a published model; all of them are in its MLflow run."""


class ProgressBars:
    """The bars of a run, one a stage; a bar begins with the first progress that its stage reports.

    They move in a thread of their own: an API that is away makes a call last for minutes, and nobody waits for a bar.
    """

    def __init__(self) -> None:
        self._bars: dict[str, UUID] = {}
        self._phase = ""
        self._wanted: dict[str, tuple[float, str]] = {}
        self._changed = threading.Condition()
        self._ended = False
        mover = partial(copy_context().run, self._move)  # the bars belong to the flow run of the caller
        self._thread = threading.Thread(target=mover, name="progress-bars", daemon=True)

    def report(self, stage: str, event: dict[str, Any]) -> None:
        """Say where a bar should be, if the event tells how far the stage is."""
        if event["kind"] == "phase":
            self._phase = event["name"]
        if event["kind"] == "progress":
            done, total = event["done"], event["total"]
            text = f"{stage} · {self._phase}: {done} of {total} {event['unit']}  {event['note']}".rstrip()
            with self._changed:
                self._wanted[stage] = (100.0 * done / total, text)
                self._changed.notify()

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let the bars reach their last place, if the API answers."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(LAST_WORD_SECONDS)

    def _move(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._ended)
                wanted, self._wanted = self._wanted, {}
                if not wanted:
                    return
            for stage, (percent, text) in wanted.items():
                with suppress(HTTPError):
                    self._show(stage, percent, text)
            with self._changed:
                self._changed.wait_for(lambda: self._ended, UPDATE_SECONDS)

    def _show(self, stage: str, percent: float, text: str) -> None:
        if stage in self._bars:
            update_progress_artifact(self._bars[stage], progress=percent, description=text)
        else:
            created = create_progress_artifact(percent, key=f"{stage}-progress", description=text)
            assert isinstance(created, UUID)
            self._bars[stage] = created


def show_plan(recipe: PipelineSpec, steps: Sequence[Step], found: Forecast) -> None:
    """What a run will reuse and run, why, and what it takes."""
    create_markdown_artifact(plan_markdown(recipe, steps, found), key="plan", description="What this run will do")


def show_links(result: Result, settings: Settings) -> None:
    """Where to look on: the stage's run in MLflow, and its job in Ray's dashboard."""
    run, job = result.ids.get("mlflow_run"), result.ids.get("ray_job")
    if run and settings.tracking_uri.startswith("http"):
        _link(f"{result.stage} in MLflow", f"{settings.tracking_uri}/#/runs/{run}", f"{result.stage}-mlflow")
    if job and settings.ray_dashboard:
        _link(f"{result.stage} in Ray", f"{settings.ray_dashboard}/#/jobs/{job}", f"{result.stage}-ray")


def show_pictures(result: Result, settings: Settings) -> None:
    """The plots that a stage drew, as MLflow's server hands them out."""
    if not settings.tracking_uri.startswith("http") or "mlflow_run" not in result.ids:
        return
    for name, text in PICTURES.items():
        if (result.folder / "plots" / name).exists():
            place = urlencode({"path": f"plots/{name}", "run_uuid": result.ids["mlflow_run"]})
            create_image_artifact(
                f"{settings.tracking_uri}/get-artifact?{place}", key=Path(name).stem, description=text
            )


def _link(text: str, address: str, key: str) -> None:
    """A link that works on the artifact's card already, since its description is one too."""
    create_link_artifact(address, link_text=text, key=key, description=f"[{text}]({address})")


def show_card(result: Result) -> None:
    """What an ingestion kept, lost and holds."""
    path = result.folder / CARD_FOLDER / MARKDOWN_FILE
    if path.exists():
        create_markdown_artifact(path.read_text(), key="data-card", description="What the data set holds")


def show_failures(stage: str, folder: Path) -> None:
    """What went wrong while a stage was made, and how long it took to go on; nothing where nothing did."""
    rows = failure_rows(event for _, event in read_events(folder))
    if rows:
        create_table_artifact(
            rows, key=f"{stage}-failures", description=f"What went wrong in {stage}, and what was done"
        )


def show_sweep(outcomes: Sequence[Outcome], name: str) -> None:
    """The table of a sweep that the command line prints at the end."""
    create_table_artifact(sweep_rows(outcomes), key="sweep", description=f"{name}, the best first")


def show_results(results: Iterable[Result]) -> None:
    """The table that the command line prints at the end."""
    rows = [summary_row(result) for result in results]
    create_table_artifact(rows, key="results", description="What was made, and how good it is")
