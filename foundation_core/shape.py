"""What one sample of a data set looks like: what a model has to be built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class SampleShape:
    """Text has a vocabulary; an image, a spectrogram or a series has channels on a grid; captioned ones have both.

    Args:
        vocabulary: entries of the tokenizer; 0 where there is no text.
        channels: values at each place of the grid; 0 where there is no grid.
    """

    vocabulary: int = 0
    channels: int = 0
    height: int = 0
    width: int = 0

    def to_json(self) -> dict[str, int]:
        """As a dict."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, int]) -> SampleShape:
        """From what `to_json` gave."""
        return cls(**body)
