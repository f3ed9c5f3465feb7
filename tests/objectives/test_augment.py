"""Values moved, turned, stretched and sheared, as a function of seed and sample."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foundation_core.data.loading.loader import Batch, Loader
from foundation_core.data.loading.order import Order
from foundation_core.objectives.augment import augmented, warped
from foundation_core.specs import AugmentSpec

VALUES = torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
NUMBERS = torch.arange(6)
EXACT = {"rtol": 0, "atol": 1e-5}


class Images:
    def __len__(self) -> int:
        return len(VALUES)

    def gather(self, indices: Tensor) -> Batch:
        return {"values": VALUES[indices]}


def read_from(source: list[list[float]]) -> Tensor:
    return warped(VALUES, torch.tensor(source).expand(6, 2, 3), "border")


def test_each_place_reads_itself_its_neighbour_or_a_turned_place():
    torch.testing.assert_close(read_from([[1, 0, 0], [0, 1, 0]]), VALUES, **EXACT)
    left = torch.cat([VALUES[..., 1:], VALUES[..., -1:]], dim=-1)  # what comes in repeats the border
    torch.testing.assert_close(read_from([[1, 0, 0], [0, 1, 1]]), left, **EXACT)
    up = torch.cat([VALUES[..., 1:, :], VALUES[..., -1:, :]], dim=-2)
    torch.testing.assert_close(read_from([[1, 0, 1], [0, 1, 0]]), up, **EXACT)
    torch.testing.assert_close(read_from([[0, 1, 0], [-1, 0, 0]]), VALUES.rot90(1, (2, 3)), **EXACT)
    halfway = read_from([[1, 0, 0], [0, 1, 0.5]])[..., :-1]
    torch.testing.assert_close(halfway, (VALUES[..., 1:] + VALUES[..., :-1]) / 2, **EXACT)


def test_a_turn_keeps_its_angle_where_height_and_width_differ():
    line = torch.zeros(1, 1, 5, 15)
    line[..., 2, :] = 1  # a lying line, turned by a right angle, stands
    turned = warped(line, torch.tensor([[[0.0, 1, 0], [-1, 0, 0]]]), "border")[0, 0]
    assert turned[:, 7].tolist() == pytest.approx([1] * 5, abs=1e-5)
    assert turned[:, :7].abs().max() < 1e-5


@pytest.mark.parametrize(
    "field", [{"shift": (1, 0)}, {"shift": (0, 1)}, {"rotate_degrees": 20}, {"scale": 0.2}, {"shear": 0.2}], ids=str
)
def test_every_field_changes_something_and_a_ramp_stays_within_the_limits(field):
    spec = AugmentSpec(**field, outside="border")
    assert spec.changes
    assert not AugmentSpec().changes
    changed = augmented(VALUES, spec, 0, NUMBERS)
    assert not torch.allclose(changed, VALUES, **EXACT)
    assert len({tuple(row.flatten().tolist()) for row in changed - VALUES}) == len(VALUES)
    column = torch.arange(8.0).expand(6, 1, 8, 8)
    far = (augmented(column, spec, 0, NUMBERS) - column).abs().max().item()
    assert (
        far
        <= {"shift": field.get("shift", (0, 0))[1], "shear": 0.7, "scale": 0.7, "rotate_degrees": 1.41}[
            next(iter(field))
        ]
        + 1e-5
    )


def test_from_outside_comes_each_samples_lowest_value():
    dark = VALUES.clone()
    dark[3] -= 10
    found = augmented(dark, AugmentSpec(shift=(30, 30)), 0, NUMBERS)
    lowest = dark.amin(dim=(1, 2, 3))
    assert (found.amin(dim=(1, 2, 3)) == lowest).all()
    gone = (found == lowest[:, None, None, None]).float().mean(dim=(1, 2, 3))
    assert gone.max() == 1  # moved out of sight
    assert gone.min() < 1


def test_what_ranks_read_is_what_one_rank_alone_reads_and_a_second_look_is_another():
    spec = AugmentSpec(shift=(1, 1), rotate_degrees=10, scale=0.1, shear=0.1)

    def change(batch: Batch) -> Batch:
        return {**batch, "values": augmented(batch["values"], spec, 0, batch["sample"])}

    def read(step: int, rank: int = 0, world: int = 1, how=change) -> Tensor:
        (batch,) = Loader(Images(), Order(6, seed=0), 6, 6, rank, world, how).micro_batches(step)
        return batch["values"]

    assert torch.equal(torch.cat([read(0, rank, 2) for rank in (0, 1)]), read(0))
    back = [Order(6, seed=0).take(6 * step, 6).argsort() for step in (0, 1)]
    assert torch.equal(read(0, how=None)[back[0]], read(1, how=None)[back[1]])
    assert not torch.equal(read(0)[back[0]], read(1)[back[1]])
