"""How values differ each time that they are seen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat

from foundation_core.specs.base import Spec


class AugmentSpec(Spec):
    """How values differ each time that they are seen in training: at random, up to these limits. Of no use to text."""

    shift: tuple[NonNegativeFloat, NonNegativeFloat] = (0.0, 0.0)
    """Rows and columns that they are moved by, either way: pixels, or mel bins and frames."""
    rotate_degrees: float = Field(0.0, ge=0, le=180)
    """How far they are turned, either way."""
    scale: float = Field(0.0, ge=0, lt=1)
    """Share by which they are stretched or shrunk, in height and in width."""
    shear: float = Field(0.0, ge=0, lt=1)
    """Columns that a row is moved by against the one below it, either way."""

    outside: Literal["lowest", "border"] = "lowest"
    """What comes in from outside: the sample's lowest value, which is black or silence, or the nearest value inside."""

    @property
    def changes(self) -> bool:
        """Whether anything is changed."""
        return any((*self.shift, self.rotate_degrees, self.scale, self.shear))
