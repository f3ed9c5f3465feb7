"""The learning rate as a pure function of the step.

    cosine   /‾‾--..__        wsd   /‾‾‾‾‾‾‾\\
"""

from __future__ import annotations

import math

from foundation_core.specs import OptimizerSpec


def lr_at(step: int, steps: int, spec: OptimizerSpec) -> float:
    """The learning rate of step `step` (from 0) of `steps`: linear warm-up, then what the spec's schedule says.

    Both end at `final_lr_fraction` of the peak with the last step.

    Sources: Loshchilov and Hutter 2017, equation 5, without restarts (cosine); Hu et al. 2024, MiniCPM, section 4
    (wsd); Haegele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", section 3
    (the shapes of its decay).
    """
    warmup_steps = round(spec.warmup_fraction * steps)
    if step < warmup_steps:
        return spec.lr * (step + 1) / warmup_steps
    floor = spec.final_lr_fraction
    return spec.lr * (floor + (1 - floor) * _left(step, steps, warmup_steps, spec))


def _left(step: int, steps: int, warmup_steps: int, spec: OptimizerSpec) -> float:
    """The share of the fall that is still to come after the warm-up: from 1 to 0."""
    if spec.schedule == "cosine":
        done = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    decay_steps = min(round(spec.decay_fraction * steps), steps - warmup_steps)
    done = max(0, step - (steps - 1 - decay_steps)) / max(1, decay_steps)
    return 1 - (done if spec.decay_shape == "linear" else math.sqrt(done))
