"""Masked patches: see a quarter of an image, a spectrogram or a series, and draw the rest."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from foundation_core.errors import ConfigError
from foundation_core.fitting import PATCH_FRACTION, Patches, patch_misfits
from foundation_core.model.layout import Layout
from foundation_core.model.stems import patches_of
from foundation_core.objectives.base import ALONE, Example, Objective, Ranks, Request, there
from foundation_core.objectives.keyed import uniform

_FLAT = 1e-6
"""Added to a patch's variance, so that an even one can be divided by its deviation."""


class MaskedPatches(Objective):
    """Predict the values of hidden patches, each normalised by its own mean and deviation.

    Args:
        patch: its height and width.
        fraction: share of patches that are hidden.

    Source: He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, section 3.
    """

    unit = "squares"

    def __init__(self, patch: tuple[int, int], fraction: float = PATCH_FRACTION) -> None:
        self.patch, self.fraction = patch, fraction

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """Which patches of each row are visible, and what the others hold.

        Args:
            batch: values (N, C, H, W) and sample (N,); rows of padding have no labels.

        Returns:
            labels (N, P, values of a patch), NaN where a patch is visible.
        """
        values = batch["values"]
        patches_BPV = patches_of(values, self.patch)
        P = patches_BPV.shape[1]
        visible = Patches.of(P, self.fraction).visible
        order_BP = uniform(seed, "visible", batch["sample"], P).argsort(dim=1)
        visible_BP = order_BP[:, :visible].sort(dim=1).values
        mean, variance = patches_BPV.mean(-1, keepdim=True), patches_BPV.var(-1, keepdim=True, unbiased=False)
        labels_BPV = (patches_BPV - mean) / (variance + _FLAT).sqrt()
        labels_BPV = labels_BPV.scatter(1, visible_BP[..., None].expand(-1, -1, labels_BPV.shape[-1]), torch.nan)
        labels_BPV = torch.where(there(batch)[:, None, None], labels_BPV, torch.nan)
        return Example({"values": values, "visible_BP": visible_BP}, labels_BPV, labels_BPV.isfinite().sum())

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """float32 scalar: the sum of squared errors over all values of hidden patches."""

        def squares(head: nn.Module, x_BPD: Tensor, layout: Layout) -> Tensor:
            asked = example.labels.isfinite()
            error = head(x_BPD, layout).float() - example.labels.nan_to_num()
            total: Tensor = (error.square() * asked).sum()
            return total

        loss: Tensor = model(**example.inputs, finish=squares)
        return loss


def masked_patches(request: Request) -> MaskedPatches:
    """The objective `masked_patches`.

    Raises:
        ConfigError: of the samples that there are nothing would be hidden.
    """
    (h, w), fraction = request.model.patch, request.masking.of_patches
    patches = (request.shape.height // h) * (request.shape.width // w)
    # A model of samples that hold no patch cannot be built, which says why.
    if problems := list(patch_misfits(patches, fraction)) if patches else []:
        raise ConfigError("; ".join(problems), fix="change the field that is named")
    return MaskedPatches((h, w), fraction)
