"""Hidden patches are asked for in their own scale; the visible ones are not asked for at all."""

import torch

from foundation_core.model.stems import patches_of
from foundation_core.objectives.base import ALONE
from foundation_core.objectives.patches import MaskedPatches

VALUES = torch.randn(6, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 5 + 2
BATCH = {"values": VALUES, "sample": torch.tensor([0, 1, 2, 3, 4, -1])}
PATCH = (2, 4)


class Drawing(torch.nn.Module):
    """Gives what it was told, as the output of a head."""

    def __init__(self, patches: torch.Tensor) -> None:
        super().__init__()
        self.patches = patches

    def forward(self, values: torch.Tensor, visible_BP: torch.Tensor, finish) -> torch.Tensor:
        return finish(lambda x, layout: x, self.patches, None)


def test_patches_are_those_of_a_strided_convolution():
    identity = torch.eye(3 * 2 * 4).view(-1, 3, 2, 4)
    convolved = torch.nn.functional.conv2d(VALUES, identity, stride=PATCH).flatten(2).transpose(1, 2)
    assert torch.equal(patches_of(VALUES, PATCH), convolved)


def test_a_quarter_is_visible_and_the_rest_is_asked_for_normalised():
    example = MaskedPatches(PATCH).prepare(BATCH, 0)
    visible, labels = example.inputs["visible_BP"], example.labels
    assert visible.shape == (6, 3)
    for row in range(5):
        asked = labels[row].isfinite().all(-1)
        assert sorted(visible[row].tolist()) == (~asked).nonzero().flatten().tolist()
        torch.testing.assert_close(labels[row][asked].mean(-1), torch.zeros(9), atol=1e-5, rtol=0)
        torch.testing.assert_close(labels[row][asked].var(-1, unbiased=False), torch.ones(9), atol=1e-4, rtol=0)
    assert not labels[5].isfinite().any(), "a row of padding was asked for"
    assert example.count == 5 * 9 * 24


def test_the_loss_is_zero_for_the_truth_and_counts_hidden_values_alone():
    example = MaskedPatches(PATCH).prepare(BATCH, 0)
    truth = example.labels.nan_to_num(nan=777.0)
    assert MaskedPatches(PATCH).loss(Drawing(truth), example, ALONE) == 0
    wrong = truth + 2
    torch.testing.assert_close(
        MaskedPatches(PATCH).loss(Drawing(wrong), example, ALONE), 4 * example.count.float(), rtol=1e-5, atol=0
    )


def test_a_row_shows_the_same_patches_in_any_batch():
    whole = MaskedPatches(PATCH).prepare(BATCH, 3).inputs["visible_BP"]
    part = MaskedPatches(PATCH).prepare({name: value[2:4] for name, value in BATCH.items()}, 3).inputs["visible_BP"]
    assert torch.equal(part, whole[2:4])
    assert not torch.equal(MaskedPatches(PATCH).prepare(BATCH, 4).inputs["visible_BP"], whole)
