"""Markdown as it is written, without front matter: that is a record about the text, not the text."""

from __future__ import annotations

import re

from foundation_core.data.formats.base import Extracted
from foundation_core.data.formats.plain import Plain
from foundation_core.specs.reading import ReadingSpec

_FENCED = re.compile(r"(---|\+\+\+)[ \t]*\n(.*?)^(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.S | re.M)
_FIELD = re.compile(r"""[\w"'][\w "'.-]*[ \t]*[:=](?:\s|$)|[ \t#\[-]|$""")
"""How a line of YAML or TOML begins: a field, or what belongs to one. Prose between two rules has other lines."""


class Markdown(Plain):
    """Markdown, kept as it is."""

    def extract(self, data: bytes, limits: ReadingSpec) -> Extracted:
        """The text behind the front matter."""
        whole = super().extract(data, limits)
        return whole._replace(text=without_front_matter(whole.text))


def without_front_matter(text: str) -> str:
    """A text without the fields that stand before it, between two lines of --- (YAML) or +++ (TOML)."""
    found = _FENCED.match(text)
    if found is None or not found[2].strip() or not all(map(_FIELD.match, found[2].splitlines())):
        return text
    return text[found.end() :].lstrip("\n")
