"""What a training does when a number stops being finite, a loss leaps, or a device's memory is full.

A policy is meaning: of a corpus with a document that no model can digest it decides what comes out. How often something
is tried is placement: it decides whether something comes out.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foundation_core.specs.base import Spec, placement

Policy = Literal["rewind", "skip", "stop"]


class RecoverySpec(Spec):
    """Faults of a step, and what follows from them."""

    not_finite: Policy = "rewind"
    """When a loss or gradient is not finite and computing the step again does not help. rewind: find the documents,
    hide them everywhere, and go on from before any of them was read; skip: leave this step's samples out; stop: end."""
    spike: Literal["rewind", "skip", "stop", "off"] = "off"
    """When a step's loss leaps above `spike_deviations`, before anything learns from it: as `not_finite`, where no
    document stands out the step's samples are left out. off: nothing is compared."""
    spike_deviations: float = Field(10.0, gt=0, allow_inf_nan=False)
    """How far above the median of the last losses a leap is, in standard deviations, which their median absolute
    deviation tells; a deviation counts as one hundredth of the median at the least."""
    spike_window_steps: int = Field(64, ge=8)
    """Last losses that are looked at; nothing is a leap before there are as many."""
    recomputations: int = placement(1, ge=0)
    """How often a step is computed again from the same rows before its fault counts as theirs and not the machine's."""
    most_recomputed_steps: int = placement(20, ge=0)
    """Steps that may have needed it in one training; a machine that errs more often is to be replaced."""
    most_quarantined_documents: int = placement(16, ge=1)
    """Documents that one training may hide by itself, beside those that the recipe names."""
    most_skipped_steps: int = placement(16, ge=1)
    """Steps whose samples one training may leave out."""
    halve_micro_batch: bool = placement(True)
    """When a device's memory is full: compute the step again in micro-batches of half as many rows, and stay there."""
