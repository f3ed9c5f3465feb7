"""Values moved by whole rows and columns, as a function of seed and sample."""

import torch

from foundation_core.data.loader import Loader
from foundation_core.data.order import Order
from foundation_core.objectives.moved import moved, shifted

VALUES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Images:
    def __len__(self) -> int:
        return len(VALUES)

    def gather(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"values": VALUES[indices]}


def test_a_shift_moves_whole_rows_and_columns_and_repeats_the_border():
    values = torch.arange(12.0).view(1, 1, 3, 4)
    down_left = shifted(values, (1, 1), torch.tensor([[0.99, 0.0]]))[0, 0]
    assert down_left.tolist() == [[4, 4, 5, 6], [8, 8, 9, 10], [8, 8, 9, 10]]
    assert torch.equal(shifted(values, (1, 1), torch.tensor([[0.5, 0.5]])), values)


def test_what_a_rank_reads_moved_is_what_one_rank_alone_reads_and_a_second_look_is_another():
    def change(batch):
        return {**batch, "values": moved(batch["values"], (2, 2), 0, batch["sample"])}

    def read(step, rank=0, world=1):
        (batch,) = Loader(Images(), Order(6, seed=0), 6, 6, rank, world, change).micro_batches(step)
        return batch["values"]

    assert torch.equal(torch.cat([read(0, rank, 2) for rank in (0, 1)]), read(0))
    unmoved = [Loader(Images(), Order(6, seed=0), 6, 6).micro_batches(step)[0]["values"] for step in (0, 1)]
    back = [Order(6, seed=0).take(6 * step, 6).argsort() for step in (0, 1)]
    assert torch.equal(unmoved[0][back[0]], unmoved[1][back[1]])
    assert not torch.equal(read(0)[back[0]], read(1)[back[1]])
