"""Handwritten digits that scikit-learn brings, alone and with captions: real images that need no download.

The last 360 of 1,797 are the test set. It is harder than every fifth image would be (an RBF-SVM names 93.6% of it, of
those 98.3%), because images that stand close together look alike.
"""

from __future__ import annotations

import builtins
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from foundation_core.data.sources.documents import SourceFile
from foundation_core.plugins import need
from foundation_core.specs import SourceSpec

TEST_IMAGES = 360
_SIDE, _LEVELS = 8, 16

ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPANISH = ("cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve")
TEMPLATES = (
    ("the digit {}", ENGLISH),
    ("a handwritten {}", ENGLISH),
    ("this is the number {}", ENGLISH),
    ("an image of the digit {}", ENGLISH),
    ("el número {}", SPANISH),
    ("un {} escrito a mano", SPANISH),
    ("esta es la cifra {}", SPANISH),
    ("una imagen del número {}", SPANISH),
)
"""How a caption is worded, and the words for 0 to 9 in its language."""


def digit_captions(digit: int) -> list[str]:
    """Every caption that an image of a digit may have."""
    return [template.format(words[digit]) for template, words in TEMPLATES]


class _Scan(NamedTuple):
    image: bytes
    digit: int


@cache
def _scans() -> list[_Scan]:
    """Every image as a PGM file, and what it shows."""
    from sklearn.datasets import load_digits

    found = load_digits()
    header = f"P5\n{_SIDE} {_SIDE}\n255\n".encode()
    return [
        _Scan(header + bytes(round(level * 255 / _LEVELS) for level in levels), digit)
        for levels, digit in zip(found.data.tolist(), found.target.tolist(), strict=True)
    ]


@dataclass(frozen=True)
class DigitImage(SourceFile):
    """One image.

    Args:
        path: where no file is: the image is in the library.
        number: its place among them.
    """

    number: int

    def read(self) -> builtins.bytes:
        """The image as a PGM file."""
        return _scans()[self.number].image

    def digest(self) -> str:
        """Of digit and image."""
        return hashlib.sha256(self.group.encode() + b"\0" + self.read()).hexdigest()


class CaptionedDigit(DigitImage):
    """One image and its caption."""

    def digest(self) -> str:
        """Of digit, image and caption."""
        return hashlib.sha256(super().digest().encode() + self.caption().encode()).hexdigest()

    def caption(self) -> str:
        """A caption, chosen by a hash of the id."""
        digest = hashlib.blake2b(self.document.encode(), key=b"caption", digest_size=8).digest()
        captions = digit_captions(_scans()[self.number].digit)
        return captions[int.from_bytes(digest, "big") % len(captions)]


class Digits:
    """The images, each with its digit as the group."""

    modality, captioned = "image", False
    description = "8 x 8 images of handwritten digits (scikit-learn's digits)"
    language = "none"
    licence = "CC BY 4.0 (Alpaydin and Kaynak, 1998, UCI Machine Learning Repository), as scikit-learn brings it"
    name = "digits"
    item = DigitImage

    def __init__(self, spec: SourceSpec) -> None:
        need("vision", "sklearn")

    def files(self) -> list[SourceFile]:
        """Every image; the last 360 are the test set."""
        scans = _scans()
        return [
            self.item(
                document=f"{self.name}/{number:04d}",
                path=Path(),
                bytes=len(scan.image),
                group=str(scan.digit),
                splits=("test",) if number >= len(scans) - TEST_IMAGES else ("train", "validation"),
                number=number,
            )
            for number, scan in enumerate(scans)
        ]


class DigitsWithCaptions(Digits):
    """The same images, each with a caption in English or Spanish."""

    captioned = True
    description = "8 x 8 images of handwritten digits (scikit-learn's digits), captioned from templates"
    language = "English and Spanish, from templates"
    name = "digits_with_captions"
    item = CaptionedDigit
