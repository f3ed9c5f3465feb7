"""The mixture of experts against one that lets every expert compute, and what its routers report."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from foundation_core.model.block import FeedForward
from foundation_core.model.experts import Experts
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import PADDING, Layout
from foundation_core.objectives.base import Objective
from foundation_core.objectives.experts import BalancedNextToken, ask_routing, take_routing
from foundation_core.objectives.language import NextToken, Prefix
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

B, T, D, N = 3, 10, 16, 4
X = torch.randn(B, T, D, generator=torch.Generator().manual_seed(0))
PLACE = torch.arange(T).expand(B, -1)


def experts(chosen: int) -> Experts:
    torch.manual_seed(0)
    return Experts(D, (FeedForward(D, 24, nn.GELU(), bias=True) for _ in range(N)), chosen)


def dense(part: Experts, x: Tensor) -> Tensor:
    """The definition: every expert computes every token, and all but the chosen weigh nothing."""
    share = part.router(x).softmax(-1)
    best = share.topk(part.chosen, dim=-1)
    weight = torch.zeros_like(share).scatter(-1, best.indices, best.values)
    if part.chosen > 1:
        weight = weight / weight.sum(-1, keepdim=True)
    answers = torch.stack([expert(x) for expert in part.experts], dim=-2)
    return (answers * weight[..., None]).sum(-2)


@pytest.mark.parametrize("chosen", [1, 2, 4])
def test_it_equals_the_definition_forward_and_backward(chosen: int):
    grouped, plain = experts(chosen), experts(chosen)
    found, expected = grouped(X), dense(plain, X)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # measured: 6e-8
    found.square().sum().backward()
    expected.square().sum().backward()
    for (name, a), (_, b) in zip(grouped.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=5e-6, msg=name)  # measured: 5e-7
    assert grouped.router.weight.grad.abs().max() > 1e-3


def test_the_comparison_notices_experts_in_another_order():
    part = experts(2)
    expected = part(X)
    part.experts = nn.ModuleList(reversed(part.experts))
    assert (part(X) - expected).abs().max() > 1e-2


def test_a_token_passes_the_same_experts_whatever_stands_beside_it():
    part = experts(2)
    torch.testing.assert_close(part(X[:1, 3:4]), part(X)[:1, 3:4], rtol=0, atol=1e-6)  # measured: 9e-8


def test_an_expert_that_no_token_visits_gets_a_gradient_of_zero():
    part = experts(1)
    with torch.no_grad():
        part.router.weight[0] = 0.0
        part.router.weight[1:] = X[0, 0] * torch.arange(1, N)[:, None]
    part(X[:1, :1]).sum().backward()
    assert part.experts[0].up.weight.grad.abs().max() == 0
    assert part.experts[3].up.weight.grad.abs().max() > 0


def test_the_routing_is_the_sums_over_the_tokens_that_are_there():
    model = nn.ModuleList([experts(2), experts(1)])
    ask_routing(model)
    for part in model:
        part(X)
    segment = torch.where(PLACE < 6, 0, PADDING)
    found = take_routing(model, Layout(PLACE, segment))
    assert found is not None
    logits = model[0].router(X[:, :6]).flatten(0, 1)
    torch.testing.assert_close(found.probability[0], logits.softmax(-1).sum(0))
    torch.testing.assert_close(found.squared_logsumexp[0], logits.logsumexp(-1).square().sum())
    assert found.visits[0].tolist() == logits.topk(2).indices.flatten().bincount(minlength=N).tolist()
    assert found.visits.sum(1).tolist() == [2 * B * 6, B * 6]
    assert found.tokens == B * 6


def test_the_routing_teaches_the_router_and_is_taken_once():
    part = experts(2)
    ask_routing(part)
    part(X)
    routing = take_routing(part, Layout(PLACE))
    assert routing is not None
    (routing.probability.square().sum() + routing.squared_logsumexp.sum()).backward()
    assert part.router.weight.grad.abs().max() > 0
    assert take_routing(part, Layout(PLACE)) is None
    part(X)
    assert take_routing(part, Layout(PLACE)) is None, "it was kept though nobody asked again"


def test_a_copy_of_a_part_that_has_just_learned_has_its_weights_and_not_its_routing():
    part = experts(2)
    before = part(X)
    other = copy.deepcopy(part)
    assert take_routing(other, Layout(PLACE)) is None
    assert torch.equal(other(X), before)


def test_a_model_without_experts_has_no_routing():
    assert take_routing(FeedForward(D, 24, nn.GELU()), Layout(PLACE)) is None


def test_even_use_of_experts_is_asked_of_a_whole_batch():
    assert not BalancedNextToken().decomposable
    assert NextToken().decomposable, "control: plain losses are sums over rows"


@pytest.mark.parametrize("objective", [NextToken(), Prefix(), BalancedNextToken()], ids=lambda one: type(one).__name__)
def test_no_graph_stays_with_the_model_whatever_it_learns(objective: Objective):
    trunk = TrunkSpec(width=16, depth=2, heads=2, experts=4)
    model = initialize(build(ModelSpec(family="mixture", trunk=trunk), SampleShape(vocabulary=9)), seed=0)
    tokens = torch.randint(9, (B, T + 1), generator=torch.Generator().manual_seed(0))
    place = torch.arange(T + 1).expand(B, -1)
    batch = {"tokens": tokens, "segment": torch.zeros_like(place), "position": place, "sample": torch.arange(B)}
    example = objective.prepare(batch, 0)
    with torch.no_grad():  # as in validation, which asks for no penalty
        objective.loss(model, example)
    assert routers_hold(model) == 0
    loss = objective.loss(model, example)
    assert routers_hold(model) == (2 if isinstance(objective, BalancedNextToken) else 0)
    (loss + objective.penalty(model, example)).backward()
    assert routers_hold(model) == 0
    assert model.trunk.blocks[0].feed.branch.router.weight.grad.abs().max() > 0


def routers_hold(model: nn.Module) -> int:
    return sum(isinstance(part, Experts) and part.said is not None for part in model.modules())
