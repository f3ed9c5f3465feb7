"""What is shown of a masked autoencoder is what it saw and what it said."""

import torch

from foundation_core.evaluate.pictures import patches_to_values, reconstructions
from foundation_core.model.stems import patches_of
from foundation_core.objectives.patches import MaskedPatches

PATCH = (2, 4)
VALUES = torch.randn(3, 2, 4, 8, generator=torch.Generator().manual_seed(0))


class KnowsAll(torch.nn.Module):
    """Answers each patch with its normalised values."""

    def forward(self, values, visible_BP):
        patches = patches_of(values, PATCH)
        mean, std = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True, unbiased=False).sqrt()
        return (patches - mean) / std


class KnowsNothing(KnowsAll):
    """Answers nothing."""

    def forward(self, values, visible_BP):
        return torch.zeros_like(super().forward(values, visible_BP))


def shown(model):
    example = MaskedPatches(PATCH, 0.5).prepare({"values": VALUES, "sample": torch.arange(3)}, seed=0)
    return example, reconstructions(model, example, PATCH)


def test_patches_are_put_together_as_they_were_taken_apart():
    assert torch.equal(patches_to_values(patches_of(VALUES, PATCH), VALUES, PATCH), VALUES)


def test_one_who_knows_all_draws_the_sample():
    _, pictures = shown(KnowsAll())
    assert torch.equal(pictures[:, 0], VALUES)
    torch.testing.assert_close(pictures[:, 2], VALUES)
    _, other = shown(KnowsNothing())
    assert not torch.allclose(other[:, 2], VALUES)


def test_what_is_hidden_is_blank_and_what_is_visible_is_there():
    example, pictures = shown(KnowsNothing())
    seen = patches_of(pictures[:, 1], PATCH)
    hidden = seen.isnan().all(-1)
    assert hidden.sum(1).tolist() == [2, 2, 2]
    for row in range(3):
        visible = example.inputs["visible_BP"][row]
        assert not hidden[row, visible].any()
        assert torch.equal(seen[row, visible], patches_of(VALUES, PATCH)[row, visible])
    drawn = patches_of(pictures[:, 2], PATCH)
    assert torch.equal(drawn[~hidden], patches_of(VALUES, PATCH)[~hidden])
