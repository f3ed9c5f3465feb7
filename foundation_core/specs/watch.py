"""What is looked at while ranks train: whether all of them go on, whether one is slower, what energy they take."""

from __future__ import annotations

from math import ceil

from foundation_core.specs.base import Spec, placement


class WatchSpec(Spec):
    """Hangs, stragglers, energy. Nothing here changes a result."""

    hang_seconds: float | None = placement(120.0, gt=0, allow_inf_nan=False)
    """A rank of which nothing is heard for so long, and for hang_medians times what its steps take, hangs: every rank
    writes its stacks and leaves, and training goes on from the last checkpoint. Empty: nobody watches."""
    hang_medians: float = placement(20.0, ge=2, allow_inf_nan=False)
    """How many times the median of the steps before (validations and saves: of theirs) a rank may be silent."""
    first_seconds: float = placement(900.0, gt=0, allow_inf_nan=False)
    """The same for what has no median yet: the first step, which may compile, and the first validation and save."""
    straggler_factor: float | None = placement(1.5, gt=1, allow_inf_nan=False)
    """A rank whose own work takes so many times the others' median, in three looks in a row, is named, and again when
    it is well. Empty: nobody is."""
    straggler_steps: int = placement(20, ge=3)
    """Steps of a look: what is compared is the median of so many."""
    straggler_seconds: float = placement(30.0, ge=0, allow_inf_nan=False)
    """Between two looks, at the least: a machine that is busy for a moment is no slow one."""
    cpu_watts: float = placement(3.5, ge=0, allow_inf_nan=False)
    """Watts of one busy CPU thread, where the machine measures no energy: then it is estimated, and marked so."""
    card_watts: float = placement(400.0, ge=0, allow_inf_nan=False)
    """Watts of one accelerator at work, where it measures no energy."""

    @property
    def collective_seconds(self) -> int:
        """Timeout of the ranks' collective calls: torch's 30 minutes, and never before the watchdog, who tells more."""
        return max(1800, ceil(2 * max(self.hang_seconds or 0.0, self.first_seconds)))
