"""HTML as the text that its readers came for, found by Resiliparse; scripts, styles and comments are never part of it.

Nothing that a page names is fetched.
"""

from __future__ import annotations

import codecs
import re
from functools import partial

from foundation_core.data.formats.base import Extracted, Refused, reasons, shown
from foundation_core.data.reading.decoding import Decoded, decoded, decoded_as, normalised
from foundation_core.plugins import need
from foundation_core.specs.reading import ReadingSpec

MOST_DEPTH = 1000
"""Elements within each other. What Resiliparse takes to find the main text grows with the square of the depth."""
_SHALLOW_TAGS = 5000
_DECLARED = re.compile(
    rb"""<meta\b[^>]*?\bcharset\s*=\s*["']?\s*([\w.:-]+)|<\?xml\b[^>]*?\bencoding\s*=\s*["']([\w.:-]+)""", re.I
)
_DECLARED_BYTES = 1024
"""Where a declaration must stand: HTML Standard, section "Specifying the document's character encoding"."""


class HTML:
    """Web pages, broken ones too: they are parsed as browsers parse them."""

    libraries = ("resiliparse", "charset-normalizer")
    accepts = frozenset({"", "HTML"})

    def __init__(self) -> None:
        need("documents", "resiliparse")

    def extract(self, data: bytes, limits: ReadingSpec) -> Extracted:
        """The main text, or all that is shown if the page has no part that is mainly text."""
        from resiliparse.extract.html2text import extract_plain_text

        page, encoding = _decoded(data, limits.repair_encoding)
        _check_depth(page)
        with reasons("an HTML page"):
            shown_text = partial(
                extract_plain_text, page, preserve_formatting=True, alt_texts=False, comments=False, post_meta=False
            )
            text = shown_text(main_content=True) or shown_text(main_content=False)
        if not text.strip():
            raise Refused("an HTML page without text")
        return Extracted(shown(text), encoding)


def _decoded(data: bytes, repair: bool) -> Decoded:
    """The page: in UTF-8 if it is that, else as it declares, else as any other text."""
    try:
        return decoded(data, repair=False)
    except ValueError:
        declared = _declared(data)
        if declared is None or data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return decoded(data, repair)
    return Decoded(normalised(decoded_as(data, declared)), declared)


def _declared(data: bytes) -> str | None:
    """The encoding that a page declares, as Python calls it. Browsers read Latin-1 as Windows-1252."""
    found = _DECLARED.search(data[:_DECLARED_BYTES])
    if found is None:
        return None
    try:
        name = codecs.lookup((found[1] or found[2]).decode()).name
        if "<meta".encode(name) != b"<meta":  # then the declaration could not have been read
            return None
    except (LookupError, UnicodeError):
        return None
    if name.startswith(("utf", "unicode", "raw", "idna")):  # it is not UTF-8: that was tried
        return None
    return "windows-1252" if name in ("iso8859-1", "ascii", "cp1252") else name


def _check_depth(page: str) -> None:
    """Refuse a page whose elements may be nested deeper than any page's."""
    if page.count("<") < _SHALLOW_TAGS:
        return
    from resiliparse.parse.html import DOMContext, HTMLTree, traverse_dom

    deepest = 0

    def look(context: DOMContext) -> None:
        nonlocal deepest
        deepest = max(deepest, context.depth)

    with reasons("an HTML page"):
        body = HTMLTree.parse(page).body
        if body is not None:
            traverse_dom(body, look, elements_only=True)
    if deepest > MOST_DEPTH:
        raise Refused(f"an HTML page with more than {MOST_DEPTH} elements within each other")
