"""The learning rate is a function of the step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from foundation_core.specs import OptimizerSpec
from foundation_core.train.schedule import lr_at


def _rates(steps: int, **spec: Any) -> list[float]:
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


WSD = {"schedule": "wsd", "lr": 0.2, "warmup_fraction": 0.1, "decay_fraction": 0.3, "final_lr_fraction": 0.25}


@pytest.mark.parametrize("shape", ["linear", "root"])
def test_wsd_rises_stays_and_falls_to_its_share_at_the_last_step(shape: str) -> None:
    rates = _rates(40, **WSD, decay_shape=shape)
    assert rates[:4] == [pytest.approx(0.05 * n) for n in (1, 2, 3, 4)]
    assert rates[4:28] == [0.2] * 24
    assert rates[27:] == sorted(rates[27:], reverse=True)
    assert len(set(rates[27:])) == 13
    assert rates[-1] == pytest.approx(0.05)


def test_the_shapes_of_the_fall_are_a_line_and_one_minus_a_root() -> None:
    line, root = (_rates(40, **WSD, decay_shape=shape)[27:] for shape in ("linear", "root"))
    for done, (straight, curved) in enumerate(zip(line, root, strict=True)):
        assert straight == pytest.approx(0.05 + 0.15 * (1 - done / 12))
        assert curved == pytest.approx(0.05 + 0.15 * (1 - (done / 12) ** 0.5))


@pytest.mark.parametrize("decay_fraction", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_step_of_wsd_has_a_rate_up_to_the_peak(steps: int, warmup_fraction: float, decay_fraction: float) -> None:
    if warmup_fraction + decay_fraction > 1:
        with pytest.raises(ValidationError, match=r"must not exceed 1 together"):
            OptimizerSpec(schedule="wsd", warmup_fraction=warmup_fraction, decay_fraction=decay_fraction)
        return
    phases = {"warmup_fraction": warmup_fraction, "decay_fraction": decay_fraction}
    rates = _rates(steps, schedule="wsd", lr=0.2, final_lr_fraction=0.0, **phases)
    assert all(0 <= rate <= 0.2 for rate in rates)
    assert rates[-1] == pytest.approx(0.0 if decay_fraction and steps > 1 else 0.2) or steps == 1


def test_where_nothing_is_decayed_wsd_ends_at_the_peak() -> None:
    assert _rates(10, schedule="wsd", lr=0.2, decay_fraction=0.0)[-1] == 0.2
