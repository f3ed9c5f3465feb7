"""What one sample of a data set looks like: all that a model has to know of the data that it is built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class SampleShape:
    """The sizes of one sample; 0 where it has no such side.

    Text has a vocabulary; an image channels, height and width; a log-mel spectrogram is (1, mel bins, frames), a series
    (columns, 1, steps); a captioned image has both.

    Args:
        vocabulary: entries of the tokenizer.
        channels: C of the values, (C, height, width).
    """

    vocabulary: int = 0
    channels: int = 0
    height: int = 0
    width: int = 0

    def to_json(self) -> dict[str, int]:
        """The sizes by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, int]) -> SampleShape:
        """The shape that `to_json` wrote."""
        return cls(**body)
