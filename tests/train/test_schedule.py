"""The learning rate is a function of the step."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from foundation_core.specs import OptimizerSpec
from foundation_core.train.schedule import lr_at


def _rates(steps: int, **spec: float) -> list[float]:
    return [lr_at(step, steps, OptimizerSpec(**spec)) for step in range(steps)]


def test_the_schedule_is_torchs_linear_warm_up_and_cosine() -> None:
    steps, warmup, lr, floor = 50, 10, 0.3, 0.1
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    rise = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
    fall = CosineAnnealingLR(optimizer, T_max=steps - 1 - warmup, eta_min=floor * lr)
    torchs = SequentialLR(optimizer, [rise, fall], milestones=[warmup])
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()
    assert _rates(steps, lr=lr, warmup_fraction=0.2, final_lr_fraction=floor) == pytest.approx(expected, rel=1e-12)


def test_it_rises_to_the_peak_and_falls_to_its_share_at_the_last_step() -> None:
    rates = _rates(40, lr=0.2, warmup_fraction=0.1, final_lr_fraction=0.25)
    assert rates[0] == pytest.approx(0.05)
    assert rates[3] == rates[4] == max(rates) == 0.2
    assert rates[-1] == pytest.approx(0.05)
    assert rates[:4] == sorted(rates[:4])
    assert rates[4:] == sorted(rates[4:], reverse=True)


@pytest.mark.parametrize("warmup_fraction", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_step_of_every_length_has_a_rate_up_to_the_peak(steps: int, warmup_fraction: float) -> None:
    rates = _rates(steps, lr=0.2, warmup_fraction=warmup_fraction, final_lr_fraction=0.0)
    assert all(0 <= rate <= 0.2 for rate in rates)
    assert rates[0] > 0
