"""Images become squares of one size: cut, turned, scaled and laid on white as stated, or refused with the reason."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from foundation_core.data.values.images import Images
from foundation_core.specs import IngestSpec
from tests.support.raw_items import picture


def images(**fields: Any) -> Images:
    return Images(IngestSpec.model_validate({"image": {"size_pixels": 4, "channels": 1, **fields}}))


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, form, **options)
    return sink.getvalue()


def stripes() -> Image.Image:
    """12 x 4: four columns of 0, four of 100, four of 200."""
    image = Image.new("L", (12, 4))
    for column in range(12):
        for row in range(4):
            image.putpixel((column, row), 100 * (column // 4))
    return image


def test_the_middle_square_is_taken_or_the_whole_is_stretched() -> None:
    assert set(images().read(encoded(stripes())).values) == {100}
    stretched = images(crop="none").read(encoded(stripes())).values
    assert stretched[0] < 40 < 160 < stretched[3]


def test_pixels_come_channel_by_channel_row_by_row() -> None:
    image = Image.new("RGB", (4, 4), (10, 20, 30))
    image.putpixel((1, 2), (11, 22, 33))
    values = images(channels=3).read(encoded(image)).values
    at = 2 * 4 + 1
    assert (values[at], values[16 + at], values[32 + at]) == (11, 22, 33)
    assert (values[0], values[16], values[32]) == (10, 20, 30)


def test_a_photograph_is_turned_as_its_camera_says() -> None:
    image = Image.new("L", (4, 4), 0)
    image.paste(255, (0, 0, 4, 1))  # a white row on top
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the top is on the right
    turned = images().read(encoded(image, exif=exif)).values
    assert [turned[row * 4 + 3] for row in range(4)] == [255] * 4
    assert turned != images().read(encoded(image)).values


def test_what_is_transparent_is_white() -> None:
    assert set(images().read(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))).values) == {255}
    assert set(images().read(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 255)))).values) == {0}


def test_16_bits_are_scaled_to_8_and_32_are_refused() -> None:
    assert set(images().read(encoded(Image.new("I;16", (4, 4), 40_000))).values) == {156}
    with pytest.raises(ValueError, match=r"32 bits a pixel \(mode F\)"):
        images().read(encoded(Image.new("F", (4, 4), 0.5), "TIFF"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no known format"),
        (b"text", "no known format"),
        (picture(0)[:-60], "truncated"),
        (encoded(stripes(), "GIF")[:30], "decoded"),
        (encoded(stripes(), "JPEG")[:200], "decoded"),
    ],
)
def test_what_does_not_decode_is_refused_in_the_same_words_each_time(data: bytes, reason: str) -> None:
    reasons = set()
    for _ in range(2):
        with pytest.raises(ValueError, match=reason) as refused:
            images().read(data)
        reasons.add(str(refused.value))
    assert len(reasons) == 1
    assert "0x" not in reasons.pop()


def test_an_image_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match="decompression bomb"):
        images().read(picture(0))
