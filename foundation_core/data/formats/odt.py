"""ODT as the headings and paragraphs of its body, tables included. Notes, comments and what was deleted are left out.

Source: OpenDocument 1.3 part 3, section 6.1: white space is collapsed; s, tab and line-break stand for what is not.
"""

from __future__ import annotations

import re

from foundation_core.data.formats.base import Extracted, Refused, reasons, shown
from foundation_core.data.formats.zipped import Paragraphs, member, open_zip, read_xml
from foundation_core.specs.reading import ReadingSpec

_TEXT = "urn:oasis:names:tc:opendocument:xmlns:text:1.0"
_OFFICE = "urn:oasis:names:tc:opendocument:xmlns:office:1.0"
_PARAGRAPHS = frozenset({(_TEXT, "p"), (_TEXT, "h")})
_LEFT_OUT = frozenset({(_TEXT, "note"), (_TEXT, "tracked-changes"), (_OFFICE, "annotation")})
_BODY, _MANIFEST = "content.xml", "META-INF/manifest.xml"
_MOST_SPACES = 1000
"""Spaces that one element may stand for: it states them by number."""


class ODT:
    """Documents of LibreOffice."""

    libraries = ()
    accepts = frozenset({"an ODT document"})

    def extract(self, data: bytes, limits: ReadingSpec) -> Extracted:
        """The headings and paragraphs, a line each."""
        body = _Body()
        with reasons("an ODT document"), open_zip(data, "an ODT document") as archive:
            names = archive.namelist()
            if _BODY not in names:
                raise Refused(f"an ODT document without {_BODY}")
            if _MANIFEST in names and b"encryption-data" in b"".join(member(archive, _MANIFEST, limits)):
                raise Refused("an encrypted ODT document")
            read_xml(member(archive, _BODY, limits), body)
        text = shown("\n".join(body.paragraphs.done))
        if not text.strip():
            raise Refused("an ODT document without text")
        return Extracted(text, "")


class _Body:
    """Hears a body."""

    def __init__(self) -> None:
        self.paragraphs = Paragraphs()
        self._left_out = 0

    def start(self, name: tuple[str, str], attributes: dict[str, str]) -> None:
        self._left_out += name in _LEFT_OUT
        if self._left_out:
            return
        if name in _PARAGRAPHS:
            self.paragraphs.begin()
        elif name == (_TEXT, "s"):
            count = attributes.get(f"{_TEXT} c", "1")
            self.paragraphs.add(" " * min(int(count), _MOST_SPACES) if count.isascii() and count.isdigit() else " ")
        elif name == (_TEXT, "tab"):
            self.paragraphs.add("\t")
        elif name == (_TEXT, "line-break"):
            self.paragraphs.add("\n")

    def end(self, name: tuple[str, str]) -> None:
        if name in _PARAGRAPHS and not self._left_out:
            self.paragraphs.finish()
        self._left_out -= name in _LEFT_OUT

    def characters(self, text: str) -> None:
        if self._left_out:
            return
        text = re.sub(r"[ \t\r\n]+", " ", text)
        self.paragraphs.add(text.lstrip(" ") if self.paragraphs.ends_in_space() else text)
