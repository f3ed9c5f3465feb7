"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from foundation_core.specs import OptimizerSpec


def lr_at(step: int, steps: int, spec: OptimizerSpec) -> float:
    """The learning rate of step `step` (from 0) of `steps`: linear warm-up, then a cosine to `final_lr_fraction`.

    Source: Loshchilov and Hutter 2017, equation 5, without restarts.
    """
    warmup_steps = round(spec.warmup_fraction * steps)
    if step < warmup_steps:
        return spec.lr * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    floor = spec.final_lr_fraction
    return spec.lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
