"""Values of images, audio and series as people see them: statistics, and a picture in shades from 0 to 1."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PNG_PIXELS = 192


@dataclass(frozen=True)
class Values:
    """The values of a sample.

    Args:
        shape: channels, height, width.
        pixels: (height, width, 1 or 3), from 0 to 1, the first row on top; empty of a series.
        lines: of each channel of a series, from 0 to 1.
    """

    shape: tuple[int, int, int]
    smallest: float
    mean: float
    largest: float
    deviation: float
    pixels: NDArray[np.float64]
    lines: NDArray[np.float64]


def values_shown(values: Sequence[float], shape: dict[str, int], modality: str) -> Values:
    """What can be seen of a sample's values."""
    numbers = np.asarray(values, np.float64)
    size = (shape["channels"], shape["height"], shape["width"])
    cube = numbers.reshape(size)
    low, high = (0.0, 255.0) if modality == "image" else (float(cube.min()), float(cube.max()))
    shades = (cube - low) / max(high - low, 1e-12)
    flat = size[1] == 1
    lines = _each_from_0_to_1(cube[:, 0]) if flat else np.zeros((0, 0))
    picture = shades if size[0] in (1, 3) else shades.mean(0, keepdims=True)
    if modality == "audio":
        picture = picture[:, ::-1]  # low tones at the foot
    return Values(
        size, float(numbers.min()), float(numbers.mean()), float(numbers.max()), float(numbers.std()),
        np.zeros((0, 0, 1)) if flat else picture.transpose(1, 2, 0), lines,
    )  # fmt: skip


def _each_from_0_to_1(lines: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = lines.min(1, keepdims=True), lines.max(1, keepdims=True)
    return np.asarray((lines - low) / np.maximum(high - low, 1e-12))


def png(values: Values) -> str:
    """The picture as a data address; empty without one, or without the library that writes it."""
    if not values.pixels.size or find_spec("PIL") is None:
        return ""
    from PIL import Image

    levels = (255 * values.pixels).round().astype(np.uint8)
    picture: Any = Image.fromarray(levels if levels.shape[2] == 3 else levels[:, :, 0])
    if (largest := max(picture.size)) > _PNG_PIXELS:
        picture.thumbnail((_PNG_PIXELS, _PNG_PIXELS))
    elif largest < _PNG_PIXELS:
        scale = _PNG_PIXELS // largest
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return f"data:image/png;base64,{base64.b64encode(sink.getvalue()).decode()}"


def points(line: NDArray[np.float64]) -> str:
    """A line of values as the points of an SVG of 100 by 30."""
    last = max(len(line) - 1, 1)
    return " ".join(f"{100 * place / last:.2f},{29 - 28 * value:.2f}" for place, value in enumerate(line))
