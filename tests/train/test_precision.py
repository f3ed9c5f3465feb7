"""The number format is what was asked for, or the one that this hardware multiplies faster."""

from __future__ import annotations

import pytest
import torch

from foundation_core.errors import ConfigError
from foundation_core.specs import OptimizerSpec
from foundation_core.train import precision
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.precision import choose_precision
from tests.support.training import tiny_model


@pytest.mark.parametrize(("asked", "dtype"), [("bf16", torch.bfloat16), ("float32", torch.float32)])
def test_what_the_recipe_asks_for_is_taken(asked: str, dtype: torch.dtype) -> None:
    chosen = choose_precision(asked)
    assert (chosen.name, chosen.dtype, chosen.reason) == (asked, dtype, "the recipe says so")


@pytest.mark.parametrize(("bf16_seconds", "name"), [(0.5, "bf16"), (2.0, "float32"), (1.0, "float32")])
def test_auto_takes_the_faster_one_and_says_by_how_much(
    monkeypatch: pytest.MonkeyPatch, bf16_seconds: float, name: str
) -> None:
    seconds = {torch.float32: 1.0, torch.bfloat16: bf16_seconds}
    monkeypatch.setattr(precision, "_product_seconds", lambda dtype, device, size: seconds[dtype])
    chosen = choose_precision("auto")
    assert chosen.name == name
    assert f"{bf16_seconds:.2f} times as long in bf16" in chosen.reason


@pytest.mark.parametrize(("device", "size"), [("cpu", 256), ("cuda", 4096)])
def test_what_is_timed_is_on_the_device_that_trains_and_large_enough_for_it(
    monkeypatch: pytest.MonkeyPatch, device: str, size: int
) -> None:
    """A stand-in times it: a 256-square product of a GPU would be over before its start is."""
    timed = []

    def seconds(dtype: torch.dtype, where: torch.device, rows: int) -> float:
        timed.append((where.type, rows))
        return 1.0

    monkeypatch.setattr(precision, "_product_seconds", seconds)
    assert f"a {size}-square product" in choose_precision("auto", torch.device(device)).reason
    assert timed == [(device, size)] * 2


def test_auto_measures_real_products() -> None:
    assert choose_precision("auto").name in ("bf16", "float32")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="'fp8'"):
        choose_precision("fp8")


def test_in_bf16_products_are_rounded_and_parameters_are_not() -> None:
    tokens = torch.arange(12)[None]
    outputs = {}
    for name in ("float32", "bf16"):
        engine = TorchEngine(tiny_model(), EngineRequest(OptimizerSpec(), name))
        outputs[name] = engine.model(tokens).detach().float()
        assert {parameter.dtype for parameter in engine.model.parameters()} == {torch.float32}
    difference = (outputs["bf16"] - outputs["float32"]).abs().max() / outputs["float32"].abs().max()
    assert 1e-4 < float(difference) < 3e-2
