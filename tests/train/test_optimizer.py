"""AdamW decays matrices, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foundation_core.specs import OptimizerSpec
from foundation_core.train.optimizer import build_optimizer, set_lr
from tests.support.training import tiny_model

SPEC = OptimizerSpec(lr=0.1, weight_decay=0.3, beta1=0.8, beta2=0.99)


def _without_gradient(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters after a step in which the loss asks for nothing."""
    optimizer = build_optimizer(model, SPEC)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def test_matrices_are_pulled_towards_zero_and_vectors_are_not() -> None:
    before = {name: parameter.detach().clone() for name, parameter in tiny_model().named_parameters()}
    after = _without_gradient(tiny_model())
    assert {parameter.ndim for parameter in after.values()} == {1, 2}
    for name, parameter in after.items():
        expected = before[name] * (1 - 0.1 * 0.3) if parameter.ndim == 2 else before[name]
        torch.testing.assert_close(parameter, expected)


def test_every_parameter_that_learns_is_in_exactly_one_group() -> None:
    model = tiny_model()
    frozen = next(model.stem.parameters())
    frozen.requires_grad_(False)
    groups = build_optimizer(model, SPEC).param_groups
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in model.parameters()} - {id(frozen)}


def test_a_model_of_matrices_alone_has_one_group() -> None:
    assert len(build_optimizer(nn.Linear(2, 2, bias=False), SPEC).param_groups) == 1


def test_the_spec_reaches_the_optimizer_and_the_rate_reaches_every_group() -> None:
    optimizer = build_optimizer(tiny_model(), SPEC)
    assert [group["betas"] for group in optimizer.param_groups] == [(0.8, 0.99)] * 3
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.3, 0.0]
    set_lr(optimizer, 0.7)
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(0.7)] * 3


def test_embedding_tables_have_their_own_multiple_of_the_rate() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, SPEC.model_copy(update={"embedding_lr_factor": 5.0}))
    set_lr(optimizer, 0.1)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    assert tables
    for parameter in model.parameters():
        assert rates[id(parameter)] == pytest.approx(0.5 if id(parameter) in tables else 0.1)
