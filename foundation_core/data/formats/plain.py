"""Plain text and code, as they are."""

from __future__ import annotations

from foundation_core.data.formats.base import Extracted
from foundation_core.data.reading.decoding import decoded
from foundation_core.specs.reading import ReadingSpec


class Plain:
    """Text that is nothing else; markup in it is part of it."""

    libraries = ("charset-normalizer",)
    accepts = frozenset({"", "HTML"})

    def extract(self, data: bytes, limits: ReadingSpec) -> Extracted:
        """The text."""
        return Extracted(*decoded(data, limits.repair_encoding))
