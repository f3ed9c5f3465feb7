"""How long a job that was asked to stop is waited for.

asked -> the rest of a step -> the save -> its copy in a store -> end
  |          |                   |
  +----------+-------------------+--- silent for `stop_seconds`? killed

A training needs what its steps, validations and saves take, whatever that is: each of them that it reports begins the
time anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.job import JOB_FILE, Job
from foundation_core.errors import DataError
from foundation_core.specs import PretrainSpec
from foundation_core.train.goodput import SAVE_SECONDS, STEP_SECONDS, VALIDATION_SECONDS

STOP_SECONDS = 45.0
"""How long a stage that is no training may be silent until it has left: it looks for the request between two short
pieces of work, and loses the one in its hand if it is killed."""
_SIGNS = {STEP_SECONDS, VALIDATION_SECONDS, SAVE_SECONDS}


class Patience:
    """What is left for a job that was asked to stop just now.

    Args:
        seconds: that it may be silent.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._heard = time.monotonic()

    @staticmethod
    def with_job(job: Job) -> Patience:
        """As the spec of the job says; of a training, that is."""
        spec = job.typed_spec() if job.stage == "pretrain" else None
        return Patience(spec.checkpoints.silent_stop_seconds if isinstance(spec, PretrainSpec) else STOP_SECONDS)

    @staticmethod
    def with_stage(folder: Path) -> Patience:
        """The same for the job that works in a stage's folder."""
        try:
            return Patience.with_job(Job.read(folder / JOB_FILE))
        except (DataError, ValueError):  # none has begun there, or one of another version
            return Patience(STOP_SECONDS)

    def hear(self, event: Mapping[str, Any]) -> None:
        """Begin anew if an event says that the work goes on; what the machine does beside it says nothing of that."""
        if event["kind"] == "progress" or (event["kind"] == "metrics" and _SIGNS & event["values"].keys()):
            self._heard = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether it was silent for too long."""
        return time.monotonic() - self._heard >= self.seconds
