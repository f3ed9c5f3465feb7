"""What a masked autoencoder sees, and what it draws."""

from __future__ import annotations

import torch
from torch import Tensor

from foundation_core.model.stems import patches_of
from foundation_core.model.transformer import MaskedAutoencoder
from foundation_core.objectives.base import Example

PICTURES_FILE = "pictures.safetensors"


@torch.inference_mode()
def reconstructions(model: MaskedAutoencoder, example: Example, patch: tuple[int, int]) -> Tensor:
    """(N, 3, C, H, W): each sample as it is, with what is hidden blank (NaN), and as the model draws it.

    A hidden patch is drawn with the mean and the deviation that it really has: the objective asks for the rest alone.
    What was visible is shown as it was.

    Args:
        example: of the objective `masked_patches`.
    """
    values_BCHW = example.inputs["values"]
    patches_BPV = patches_of(values_BCHW, patch)
    drawn_BPV = model(**example.inputs)
    mean, variance = patches_BPV.mean(-1, keepdim=True), patches_BPV.var(-1, keepdim=True, unbiased=False)
    hidden_BP1 = example.labels.isfinite().all(-1, keepdim=True)
    seen = patches_BPV.masked_fill(hidden_BP1, torch.nan)
    drawn = torch.where(hidden_BP1, drawn_BPV * variance.sqrt() + mean, patches_BPV)
    return torch.stack([patches_to_values(part, values_BCHW, patch) for part in (patches_BPV, seen, drawn)], dim=1)


def patches_to_values(patches_BPV: Tensor, like_BCHW: Tensor, patch: tuple[int, int]) -> Tensor:
    """(B, C, H, W): what `patches_of` took apart."""
    (B, C, H, W), (h, w) = like_BCHW.shape, patch
    x_BRQChw = patches_BPV.view(B, H // h, W // w, C, h, w)
    return x_BRQChw.permute(0, 3, 1, 4, 2, 5).reshape(B, C, H, W)
