"""When a fault is made: what a data folder's event logs say of the run that works in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foundation_core.events import read_events
from tests.support.stack import step_of

STEPS, SAVE_EVERY, VALIDATE_EVERY = 240, 20, 60
AT_STEP = 45
TRAINING_FIELDS = {
    "steps": STEPS,
    "checkpoint_every_steps": SAVE_EVERY,
    "validate_every_steps": VALIDATE_EVERY,
    "precision": "float32",
    "watch.hang_seconds": 30.0,
    "watch.first_seconds": 90.0,
}
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Work:
    """What is done in a data folder."""

    home: Path

    def folder(self, stage: str) -> Path | None:
        """Where a stage is at work or was."""
        return next((path.parent for path in (self.home / "results" / stage).glob("*/events.jsonl")), None)

    def step(self) -> int:
        """The last step that the training has reported."""
        folder = self.folder("pretrain")
        return step_of(folder) if folder else 0

    def wait_for(self, moment: str, words: Callable[[], object]) -> None:
        """Return at a moment of the run.

        Args:
            words: what is said if it does not come.
        """
        happened = {
            "ingest": lambda: self._heard("ingest", "phase"),
            "publish": lambda: self._heard("publish", "phase"),
            "step": lambda: AT_STEP <= self.step() < STEPS,
            "save": lambda: self._is_saving() and self.step() >= AT_STEP,
            "validation": lambda: self.step() >= VALIDATE_EVERY and self.step() % VALIDATE_EVERY == 0,
        }[moment]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            assert time.monotonic() < deadline, f"{moment} did not come: {words()}"
            time.sleep(0.005 if moment == "save" else 0.05)  # a save of this model is over in no time

    def _heard(self, stage: str, kind: str) -> bool:
        folder = self.folder(stage)
        return folder is not None and any(event["kind"] == kind for _, event in read_events(folder))

    def _is_saving(self) -> bool:
        folder = self.folder("pretrain")
        return folder is not None and any((folder / "checkpoints").glob("*.partial"))
