"""What one sample of a data set looks like: what a model has to be built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class SampleShape:
    """The sizes of one sample; 0 where a data set has no such thing.

    Args:
        vocabulary: entries of the tokenizer of its texts or captions.
        channels: of its values: colours of an image, 1 of a spectrogram, columns of a series.
        height: pixels; mel bins of a spectrogram; 1 of a series.
        width: pixels; frames of a spectrogram; steps of a series.
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
