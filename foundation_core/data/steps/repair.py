"""Texts that were decoded by the wrong table become what they were: camiÃ³n becomes camión (by ftfy)."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.steps.step import Stepped, rewritten
from foundation_core.plugins import need

_REPAIRS_ONLY: dict[str, Any] = {
    "unescape_html": False,
    "remove_terminal_escapes": False,
    "fix_latin_ligatures": False,
    "fix_character_width": False,
    "uncurl_quotes": False,
    "fix_line_breaks": False,
    "remove_control_chars": False,
    "normalization": "NFC",  # as every text is that was read
}


class EncodingRepair:
    """Repairs lines by themselves: what is right in one must not vouch for another."""

    name = "encoding"

    def __init__(self) -> None:
        """Raises SetupError without ftfy."""
        need("text", "ftfy")

    def __call__(self, texts: pa.Array) -> Stepped:
        """The texts, and how many lines of each were repaired.

        A line of ASCII cannot be broken. Of the others ftfy tells by one expression which ones may be, and repairs none
        that this does not find.
        """
        import ftfy
        from ftfy.badness import is_bad

        config = ftfy.TextFixerConfig(**_REPAIRS_ONLY)

        def repair(_: int, text: str, counts: dict[str, int]) -> str:
            lines = text.split("\n")
            repaired = [
                line if line.isascii() or not is_bad(line) else ftfy.fix_text_segment(line, config) for line in lines
            ]
            counts["repaired_lines"] = sum(new != old for new, old in zip(repaired, lines, strict=True))
            return "\n".join(repaired)

        return rewritten(texts, pc.invert(pc.string_is_ascii(texts)), ("repaired_lines",), repair)
