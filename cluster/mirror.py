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
from typing import TYPE_CHECKING

from foundation_core.errors import FoundationError
from foundation_core.events import read_events
from foundation_core.tracking.base import replay

if TYPE_CHECKING:
    from foundation_core.tracking.mlflow import MlflowRuns, MlflowTracker, Status

LOOK_SECONDS = 0.5
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
                self._offset = offset
            tracker.flush()
        except FoundationError:
            return False
        return True
