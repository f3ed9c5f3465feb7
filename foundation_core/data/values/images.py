"""Images become values: decoded by Pillow, square, of one size, 0 to 255."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from foundation_core.data.sources.modalities import Content, Item, Modality
from foundation_core.plugins import need
from foundation_core.shape import SampleShape
from foundation_core.specs import IngestSpec

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES = {1: "L", 3: "RGB"}


class Images(Modality):
    """Images of any format that Pillow reads; of an animation the first picture."""

    libraries = ("pillow",)
    reads = ("image",)
    values = pa.uint8()

    def __init__(self, spec: IngestSpec) -> None:
        need("vision", "PIL")
        self._spec = spec.image
        size, channels, crop = spec.image.size_pixels, spec.image.channels, spec.image.crop
        self.shape = SampleShape(channels=channels, height=size, width=size)
        cut = "the middle square" if crop == "center" else "the whole image, stretched to a square,"
        colours = "red, green, blue" if channels == 3 else "brightness"
        self.reading = (
            f"Decoded by Pillow, turned upright; {cut} scaled to {size} x {size} pixels of {colours}, 0 to 255."
        )

    def read(self, data: bytes) -> Content:
        """The pixels, (C, H, W)."""
        try:
            image = self._square(_decoded(data))
        except MemoryError:
            raise
        except Exception as error:  # each format's decoder raises errors of its own
            raise ValueError(f"not an image that can be decoded: {_words(error)}") from error
        return Content(values=b"".join(band.tobytes() for band in image.split()))

    def example(self) -> Item:
        """A PNG picture that grows brighter from its upper left to its lower right."""
        from PIL import Image as images

        side, sink = self._spec.size_pixels, io.BytesIO()
        levels = bytes(255 * (row + column) // (2 * side) for row in range(side) for column in range(side))
        images.frombytes("L", (side, side), levels).save(sink, "PNG")
        return sink.getvalue()

    def _square(self, image: Image) -> Image:
        from PIL import Image as images
        from PIL import ImageOps

        size = (self._spec.size_pixels, self._spec.size_pixels)
        image = image.convert(_MODES[self._spec.channels])
        if self._spec.crop == "center":
            return ImageOps.fit(image, size, images.Resampling.BICUBIC)
        return image.resize(size, images.Resampling.BICUBIC)


def _decoded(data: bytes) -> Image:
    """The image upright, 8 bits a colour, without transparency."""
    from PIL import Image as images
    from PIL import ImageOps

    image: Any = images.open(io.BytesIO(data))
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # convert("L") would clip at 255 instead of scaling
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.mode in ("I", "F"):
        raise ValueError(f"32 bits a pixel (mode {image.mode}); allowed: 8 or 16")
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        image = images.alpha_composite(images.new("RGBA", whole.size, "white"), whole).convert("RGB")
    return image


def _words(error: Exception) -> str:
    """What went wrong, the same in every run: Pillow names an unknown file by its address in memory."""
    from PIL import UnidentifiedImageError

    return "no known format" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
