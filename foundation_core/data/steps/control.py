"""Characters that nobody sees are removed: they part words for a tokenizer where a reader sees one."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.steps.step import Stepped
from foundation_core.specs.cleaning import ControlCharactersSpec

_BREAKS = r"[\x{b}\x{c}\x{85}]"
"""Vertical tab, form feed and next line; removed, they would join words."""
_CONTROL = r"[\x{0}-\x{8}\x{d}-\x{1f}\x{7f}-\x{84}\x{86}-\x{9f}]"
_ZERO_WIDTH = r"[\x{ad}\x{180e}\x{200b}\x{2060}-\x{2064}\x{feff}]"
_DIRECTIONS = r"[\x{61c}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2066}-\x{2069}]"


class ControlCharacters:
    """Removes kinds of characters, each by one pass of Arrow over all texts, where there are any."""

    name = "control"

    def __init__(self, spec: ControlCharactersSpec) -> None:
        self.spec = spec

    def __call__(self, texts: pa.Array) -> Stepped:
        """The texts, and how many characters of each kind were replaced."""
        removed = [("breaks", _BREAKS, "\n"), ("control", _CONTROL, "")]
        removed += [("zero_width", _ZERO_WIDTH, "")] if self.spec.zero_width else []
        removed += [("directions", _DIRECTIONS, "")] if self.spec.directions else []
        changes = dict[str, pa.Array]()
        for kind, pattern, instead in removed:
            changes[kind] = pc.cast(pc.count_substring_regex(texts, pattern), pa.int64())
            if pc.any(pc.greater(changes[kind], 0)).as_py():
                texts = pc.replace_substring_regex(texts, pattern, instead)
        return Stepped(texts, changes)
