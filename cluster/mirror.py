"""Shows a stage in MLflow while it runs: reads its event log from the start, logs what the run does not have yet.

It is a thread of the launcher: a job never waits for MLflow, and a log that was written while MLflow was away, or by
an earlier try, is logged late and not lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation_core.errors import FoundationError
from foundation_core.events import EventLog, last_event, read_events
from foundation_core.tracking.base import FailureTally, replay

if TYPE_CHECKING:
    from foundation_core.tracking.mlflow import MlflowRuns, MlflowTracker, Status

LOOK_SECONDS = 0.5
AWAY_SECONDS = 5.0
"""How long MLflow must not answer before that is a failure."""
PATIENCE_SECONDS = 10.0
"""How long after the end of a stage an absent MLflow is waited for; what it missed is logged the next time."""


class Mirror:
    """The MLflow side of one stage.

    Args:
        runs: the MLflow store; may still be opening.
        open_run: opens (or reopens) the stage's run and returns its id.
    """

    def __init__(self, folder: Path, runs: Future[MlflowRuns], open_run: Callable[[MlflowRuns], str]) -> None:
        self._folder, self._runs, self._open_run = folder, runs, open_run
        self._offset = 0
        self._tally = FailureTally()
        self._away_since: float | None = None
        self._is_away = False
        self._complete = False
        self._ended = threading.Event()
        self.run_id: Future[str] = Future()
        self._thread = threading.Thread(target=self._mirror, name="mlflow-mirror", daemon=True)
        self._thread.start()

    def close(self, status: Status, tags: dict[str, str] | None = None) -> bool:
        """Log the rest and close the run; False if MLflow stayed away or refused something."""
        self._ended.set()
        self._thread.join()
        if not self._complete:
            return False
        try:
            run_id = self.run_id.result()
            self._runs.result().tracker(run_id).tags(tags or {})
            self._runs.result().close(run_id, status)
        except FoundationError:
            return False
        return True

    def _mirror(self) -> None:
        try:
            runs = self._runs.result()
            self.run_id.set_result(self._open_run(runs))
        except BaseException as error:
            self.run_id.set_exception(error)
            return
        tracker = runs.tracker(self.run_id.result())
        give_up = float("inf")
        while time.monotonic() < give_up:
            ended = self._ended.is_set()
            if self._log_new_events(tracker) and ended:
                self._complete = True
                return
            if ended:
                give_up = min(give_up, time.monotonic() + PATIENCE_SECONDS)
            self._ended.wait(LOOK_SECONDS)

    def _log_new_events(self, tracker: MlflowTracker) -> bool:
        """Log what is new; False if MLflow did not take it, and the next look tries again."""
        try:
            for offset, event in read_events(self._folder, self._offset):
                replay(event, tracker)
                self._tally.apply(event, tracker)
                self._offset = offset
            tracker.flush()
        except FoundationError as away:
            self._tell_away(away)
            return False
        self._tell_back()
        return True

    def _tell_away(self, away: FoundationError) -> None:
        """An event once MLflow was away for some looks: MLflow gets it too, later."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        elif not self._is_away and now - self._away_since >= AWAY_SECONDS and self._job_speaks():
            self._is_away = True
            self._write("failure", attempt=None, budget_left=None, what=away.found)

    def _job_speaks(self) -> bool:
        """Whether the attempt goes on: the last word of one that is over is its event `end`."""
        return not self._ended.is_set() and last_event(self._folder).get("kind") != "end"

    def _tell_back(self) -> None:
        if self._is_away and self._away_since is not None and self._job_speaks():
            self._write("recovered", seconds=round(time.monotonic() - self._away_since, 3))
        self._away_since, self._is_away = None, False

    def _write(self, kind: str, **fields: Any) -> None:
        EventLog(self._folder).write(kind, failure="tracking_away", service="MLflow", step=None, **fields)
