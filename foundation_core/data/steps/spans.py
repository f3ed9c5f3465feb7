"""How personal data is found: a cheap hint at which texts may hold a kind of it, and where in a text it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from foundation_core.specs.cleaning import PersonalKind

Spans = Iterable[tuple[int, int]]
"""Where things start and stop in a text, in order, none within another."""


@dataclass(frozen=True)
class Finder:
    """Finds one kind.

    Args:
        hint: expression of RE2 that each text matches in which there is something to find.
        spans: where it is.
    """

    kind: PersonalKind
    hint: str
    spans: Callable[[str], Spans]


def replaced(text: str, spans: Spans, placeholder: str) -> tuple[str, int]:
    """The text with the placeholder in place of what was found, and how often."""
    pieces, end, count = list[str](), 0, 0
    for start, stop in spans:
        pieces += [text[end:start], placeholder]
        end, count = stop, count + 1
    return ("".join(pieces) + text[end:], count) if count else (text, 0)
