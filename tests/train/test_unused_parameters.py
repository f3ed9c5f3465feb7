"""A parameter that a step does not use moves alike in one process and on a rank of several: as zeros move it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from foundation_core.specs import OptimizerSpec
from foundation_core.train.data_parallel import DataParallelEngine
from foundation_core.train.engine import EngineRequest, TorchEngine


class TwoLayers(nn.Module):
    """The second one is of use to some steps only; a third is to none and does not learn."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fixed = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x: Tensor, both: bool) -> Tensor:
        return self.second(self.first(x)) if both else self.first(x)


@pytest.fixture
def one_rank() -> Iterator[None]:
    """A group of one rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def trained(make: type[TorchEngine], used: list[bool]) -> dict[str, Tensor]:
    """The weights after a step for each entry, which says whether it uses the second layer."""
    torch.manual_seed(0)
    engine = make(TwoLayers(), EngineRequest(OptimizerSpec(lr=0.1)))
    for step, both in enumerate(used):
        loss = engine.model(torch.full((2, 4), step + 1.0), both).square().sum()
        engine.backward(loss, last=True)
        engine.step(0.1)
    return engine.weights()


@pytest.mark.usefixtures("one_rank")
def test_one_process_and_a_rank_of_several_end_alike_whatever_steps_use() -> None:
    used = [True, False, True, False]
    alone, of_several = (trained(make, used) for make in (TorchEngine, DataParallelEngine))
    torch.testing.assert_close(alone, of_several)
    once = trained(TorchEngine, [True])
    assert not torch.equal(trained(TorchEngine, [True, False])["second.weight"], once["second.weight"])
    torch.manual_seed(0)
    assert torch.equal(alone["fixed.weight"], TwoLayers().fixed.weight)
