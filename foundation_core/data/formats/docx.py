"""DOCX as the paragraphs of its body, tables included. Notes, headers, comments and what was deleted are left out.

Source: ECMA-376 part 1, section 17.3: paragraphs (p), runs of text (t), tabs (tab) and breaks (br, cr).
"""

from __future__ import annotations

from foundation_core.data.formats.base import Extracted, Refused, reasons, shown
from foundation_core.data.formats.zipped import Paragraphs, member, open_zip, read_xml
from foundation_core.specs.reading import ReadingSpec

_WORD = frozenset(
    {
        "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        "http://purl.oclc.org/ooxml/wordprocessingml/main",
    }
)
_SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "\u2011"}
_BODY = "word/document.xml"


class DOCX:
    """Documents of Word."""

    libraries = ()
    accepts = frozenset({"a DOCX document"})

    def extract(self, data: bytes, limits: ReadingSpec) -> Extracted:
        """The paragraphs, a line each."""
        body = _Body()
        with reasons("a DOCX document"), open_zip(data, "a DOCX document") as archive:
            if _BODY not in archive.namelist():
                raise Refused(f"a DOCX document without {_BODY}")
            read_xml(member(archive, _BODY, limits), body)
        text = shown("\n".join(body.paragraphs.done))
        if not text.strip():
            raise Refused("a DOCX document without text")
        return Extracted(text, "")


class _Body:
    """Hears a body. What stands in a Fallback stands in the Choice before it, too."""

    def __init__(self) -> None:
        self.paragraphs = Paragraphs()
        self._in_text = self._in_properties = False
        self._fallbacks = 0

    def start(self, name: tuple[str, str], attributes: dict[str, str]) -> None:
        namespace, local = name
        self._fallbacks += local == "Fallback"
        if self._fallbacks or namespace not in _WORD:
            return
        if local == "p":
            self.paragraphs.begin()
        elif local == "t":
            self._in_text = True
        elif local == "pPr":  # a tab in there is where a tab stops
            self._in_properties = True
        elif local in _SIGNS and not self._in_properties:
            self.paragraphs.add(_SIGNS[local])

    def end(self, name: tuple[str, str]) -> None:
        namespace, local = name
        if not self._fallbacks and namespace in _WORD:
            if local == "p":
                self.paragraphs.finish()
            elif local == "t":
                self._in_text = False
            elif local == "pPr":
                self._in_properties = False
        self._fallbacks -= local == "Fallback"

    def characters(self, text: str) -> None:
        if self._in_text and not self._fallbacks:
            self.paragraphs.add(text)
