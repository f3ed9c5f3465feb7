"""How often a training is saved, what stays of it, and where it is copied to: part of the pretraining's spec."""

from __future__ import annotations

from foundation_core.specs.base import Spec, placement


class CheckpointSpec(Spec):
    """Checkpoints beyond the newest `keep_checkpoints`, each `checkpoint_every_steps`."""

    every_minutes: float | None = placement(None, gt=0, allow_inf_nan=False)
    """Save after so many minutes of training since the last checkpoint, too. Empty: by steps alone."""
    keep_best: int = placement(0, ge=0)
    """How many checkpoints with the least validation loss stay too; those saved behind the validation of
    their step count."""
    keep_each_minutes: float | None = placement(None, gt=0, allow_inf_nan=False)
    """Of each so many minutes of training the first checkpoint stays too. Empty: none for that."""
    verify_outputs: bool = placement(True)
    """Keep what the model says of a small example with each checkpoint, and ask it again when one is loaded."""
    store: str | None = placement(None)
    """A folder that checkpoints are copied to beside the training and continued from: s3://bucket/run, a path, or an
    address of another store that fsspec writes to. One training has it for itself. Empty: they are in the data folder
    alone."""
    store_patience_minutes: float = placement(10.0, gt=0, allow_inf_nan=False)
    """How long the store may not answer: then a start is refused, and a checkpoint stays on disk alone."""
    stop_seconds: float = placement(300.0, gt=0, allow_inf_nan=False)
    """How long a training that was asked to stop may be silent before it is killed: each step, validation and save that
    it reports begins the time anew. Where there is a store, store_patience_minutes come to it."""

    @property
    def silent_stop_seconds(self) -> float:
        """`stop_seconds`, with the time that the last copy may need, about which nothing is said."""
        return self.stop_seconds + (60 * self.store_patience_minutes if self.store is not None else 0.0)
