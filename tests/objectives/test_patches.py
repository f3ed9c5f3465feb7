"""Hidden patches are asked for in their own scale; the visible ones are not asked for at all."""

import pytest
import torch

from foundation_core.errors import ConfigError
from foundation_core.fitting import Patches, patch_misfits
from foundation_core.model.stems import patches_of
from foundation_core.objectives.base import ALONE, Request
from foundation_core.objectives.patches import MaskedPatches, masked_patches
from foundation_core.shape import SampleShape
from foundation_core.specs import MaskingSpec, ModelSpec

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


def test_samples_of_which_nothing_would_be_hidden_are_refused_and_no_others():
    refused, asked = {}, {}
    for patch in (PATCH, (8, 12), (8, 6)):
        for fraction in (0.01, 0.04, 0.05, 0.3, 0.75, 0.99):
            example = MaskedPatches(patch, fraction).prepare(BATCH, 0)
            asked[patch, fraction] = int(example.count)
            request = Request(ModelSpec(patch=patch), MaskingSpec(fraction=fraction), SampleShape(0, 3, 8, 12))
            try:
                masked_patches(request)
            except ConfigError as error:
                refused[patch, fraction] = str(error)
    assert {case for case, count in asked.items() if count == 0} == refused.keys()
    assert {(PATCH, 0.04), ((8, 12), 0.75), ((8, 6), 0.05)} <= refused.keys()
    assert not {(PATCH, 0.05), ((8, 6), 0.3), ((8, 6), 0.99)} & refused.keys()
    assert "fraction=0.04 hides none of the 12 patches" in refused[PATCH, 0.04]


@pytest.mark.parametrize("patches", [2, 3, 12, 16, 1000])
def test_the_share_that_a_refusal_names_hides_a_patch(patches: int):
    (said,) = patch_misfits(patches, 0.0001)
    share = float(said.partition("raise it to ")[2].split()[0])
    assert Patches.of(patches, share).hidden >= 1
    assert not list(patch_misfits(patches, share))
