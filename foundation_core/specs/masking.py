"""What an objective hides of a text or of a sample."""

from __future__ import annotations

from pydantic import Field

from foundation_core.fitting import PATCH_FRACTION, TEXT_FRACTION
from foundation_core.specs.base import Spec


class MaskingSpec(Spec):
    """What an objective hides; those that hide nothing do not read it."""

    fraction: float | None = Field(None, gt=0, lt=1)
    """Share of tokens or patches that are hidden. Empty: the usual, 0.15 of a text, 0.75 of patches."""
    span_tokens: float = Field(3.0, ge=1)
    """Mean length of a hidden span, for span_corruption."""
    whole_words: bool = False
    """Hide words with all their tokens, for masked_token."""

    @property
    def of_text(self) -> float:
        """The share of a text's tokens that is hidden."""
        return TEXT_FRACTION if self.fraction is None else self.fraction

    @property
    def of_patches(self) -> float:
        """The share of a sample's patches that is hidden."""
        return PATCH_FRACTION if self.fraction is None else self.fraction
