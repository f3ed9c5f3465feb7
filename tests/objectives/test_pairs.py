"""Pairs are told apart over all ranks as one would alone; captions are predicted as texts are."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from foundation_core.fitting import room_for_answer
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import PADDING
from foundation_core.objectives.base import IGNORE
from foundation_core.objectives.pairs import Captioning, Contrastive
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

B, WIDTH = 6, 5
BATCH = {
    "values": torch.randn(B, 1, 2, 2, generator=torch.Generator().manual_seed(0)),
    "tokens": torch.tensor([[5, 6, 7, 0]] * B),
    "segment": torch.tensor([[0, 0, 0, PADDING]] * B),
    "sample": torch.arange(B),
}


class Pairs(nn.Module):
    """Two linear towers and a scale."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.left, self.right = nn.Linear(4, WIDTH), nn.Linear(4, WIDTH)
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, values: torch.Tensor, tokens: torch.Tensor, layout) -> tuple[torch.Tensor, ...]:
        values = values.flatten(1)
        return F.normalize(self.left(values), dim=-1), F.normalize(self.right(values.flip(1)), dim=-1), self.scale


class Others:
    """A rank among others, whose parts were computed before."""

    def __init__(self, rank: int, parts: list[list[torch.Tensor]]) -> None:
        self.rank, self.world, self._parts = rank, len(parts), [list(part) for part in parts]

    def sum_over_ranks(self, value: torch.Tensor) -> torch.Tensor:
        raise AssertionError("not needed")

    def gather_over_ranks(self, value: torch.Tensor) -> torch.Tensor:
        return torch.stack([part.pop(0) for part in self._parts])


def _gradients(model: nn.Module) -> list[torch.Tensor]:
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    return found


def _rows(first: int, last: int) -> dict[str, torch.Tensor]:
    return {name: values[first:last] for name, values in BATCH.items()}


def test_alone_it_is_clips_loss():
    model, objective = Pairs(), Contrastive()
    example = objective.prepare(BATCH, 0)
    left, right, scale = model(**example.inputs)
    logits = scale * left @ right.T
    expected = B * (F.cross_entropy(logits, torch.arange(B)) + F.cross_entropy(logits.T, torch.arange(B))) / 2
    torch.testing.assert_close(objective.loss(model, example), expected, rtol=1e-6, atol=0)
    assert example.count == B
    assert not objective.decomposable


def test_three_ranks_have_together_the_loss_and_the_gradient_of_one():
    model, objective = Pairs(), Contrastive()
    whole = objective.loss(model, objective.prepare(BATCH, 0))
    whole.backward()
    expected = _gradients(model)
    examples = [objective.prepare(_rows(first, first + 2), 0) for first in (0, 2, 4)]
    parts = []
    for example in examples:
        left, right, _ = model(**example.inputs)
        parts.append([left.detach(), right.detach(), (example.labels != IGNORE).long()])
    losses, summed = [], [torch.zeros_like(gradient) for gradient in expected]
    for rank, example in enumerate(examples):
        loss = objective.loss(model, example, Others(rank, parts))
        loss.backward()
        losses.append(loss.detach())
        summed = [total + mine for total, mine in zip(summed, _gradients(model), strict=True)]
    torch.testing.assert_close(sum(losses), whole.detach(), rtol=1e-6, atol=0)
    for mine, one in zip(summed, expected, strict=True):
        torch.testing.assert_close(mine, one, rtol=1e-5, atol=1e-6)
    apart = sum(objective.loss(model, example).detach() for example in examples)
    assert abs(apart - whole) > 0.5, "control: ranks that see their own rows alone have another loss"


def test_rows_of_padding_are_nobodys_partner():
    model, objective = Pairs(), Contrastive()
    padded = {**BATCH, "sample": torch.tensor([0, 1, 2, 3, -1, -1])}
    example = objective.prepare(padded, 0)
    assert example.count == 4
    loss, without = objective.loss(model, example), objective.loss(model, objective.prepare(_rows(0, 4), 0))
    torch.testing.assert_close(loss, without, rtol=1e-6, atol=0)
    loss.backward()
    assert all(gradient.isfinite().all() for gradient in _gradients(model))


def test_a_caption_is_read_one_later_from_a_start_token():
    batch = {**BATCH, "sample": torch.tensor([0, 1, 2, 3, 4, -1])}
    example = Captioning(start=9).prepare(batch, 0)
    assert example.inputs["inputs"][0].tolist() == [9, 5, 6, 7]
    assert example.labels[0].tolist() == [5, 6, 7, IGNORE]
    assert (example.labels[5] == IGNORE).all()
    assert example.count == 15
    assert example.inputs["source"] is batch["values"]


@pytest.mark.parametrize("task", ["caption_of_sample", "caption_naming_class"])
def test_a_caption_has_as_much_room_as_a_learned_table_has_places(task: str):
    trunk = TrunkSpec(width=8, depth=1, heads=1, position="learned")
    spec = ModelSpec(family="captioner", trunk=trunk, context_tokens=8, patch=(1, 1))
    model = initialize(build(spec, SampleShape(10, 1, 2, 2)), seed=0)

    def loss(tokens: int) -> torch.Tensor:
        filled = {"tokens": torch.full((B, tokens), 5), "segment": torch.zeros((B, tokens), dtype=torch.int64)}
        return Captioning(start=9).loss(model, Captioning(start=9).prepare({**BATCH, **filled}, 0))

    room = room_for_answer(task, spec.context_tokens, 64)
    assert room is not None
    assert loss(room).isfinite()
    with pytest.raises(IndexError):  # the table has no more rows
        loss(room + 1)
