"""Texts cut into words by a compiled pass over their characters: what the published rules count.

    "(Don't stop: 3 well-known...)" -> ( | Do | n't | stop | : | 3 | well | - | known | ... | )

Words are what spaces part; marks that open or close them stand apart, and so do those between two of them. The rules
are those by which spaCy cuts languages of Latin script, but for its lists of single words. In a script without spaces,
what stands between spaces is one word.

Legend: a point is the number of a character in Unicode; a text's points are an array.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foundation_core.data.compiled import compiled, inlined

Points = NDArray[np.int32]
"""The characters of a text, or places in it."""

Kinds = NDArray[np.uint16]
"""What each character is."""

SPACE, LETTER, LOWER, UPPER, DIGIT, MARK, SIGN, OPENS, CLOSES, QUOTE, HYPHEN, ICON, PARTS = (
    1 << bit for bit in range(13)
)
"""What a character is. SIGN: punctuation of any kind. OPENS, CLOSES: stands apart at a word's start or end. PARTS: may
part two words."""

_PLAIN = LETTER | LOWER | UPPER | DIGIT | MARK
"""A word of these alone is never cut."""
_OPENING, _BOTH = "§%=", "—–…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
_QUOTES = "'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉⟦⟧"
_HYPHENS, _PARTING = "-–—~", "….,:<>=/+*^"
_SIGNS = "$+<=>^`|~"  # punctuation in ASCII that Unicode calls symbols
_LAST_SCRIPT, _IDEOGRAPHS = 0x20000, slice(0x20000, 0x323B0)

NEWLINE, DOT, ELLIPSIS, MINUS = map(ord, "\n.…-")
_PLUS, _PERCENT, _SQUARE, _STAR, _CARET, _COMMA, _COLON, _SLASH = map(ord, "+%²*^,:/")
_LESS, _EQUALS, _MORE, _APOSTROPHE, _CURLED, _CLOSING, _LARGE_S, _SMALL_S = map(ord, "<=>'’)Ss")
_D, _E, _L, _M, _N, _R, _T, _V = map(ord, "delmnrtv")
"""Numbers: a compiled function would ask `ord` anew for each character."""


class Alphabet:
    """What is known of each character.

    Args:
        kind: flags.
        base: the small letter without diacritics, for comparing words; other characters are their own.
    """

    def __init__(self, kind: NDArray[np.uint16], base: Points) -> None:
        self.kind, self.base = kind, base


@cache
def alphabet() -> Alphabet:
    """The characters of this Python's Unicode; it takes a tenth of a second."""
    kind, base = np.zeros(sys.maxunicode + 1, np.uint16), np.arange(sys.maxunicode + 1, dtype=np.int32)
    for point in range(_LAST_SCRIPT):
        character = chr(point)
        kind[point] = _kind(character, unicodedata.category(character))
        if kind[point] & (LETTER | MARK):
            base[point] = ord(unicodedata.normalize("NFD", character.lower())[0])
    kind[_IDEOGRAPHS] = LETTER | LOWER
    for characters, flags in (
        (_OPENING, OPENS),
        (_BOTH, OPENS | CLOSES),
        (_QUOTES, OPENS | CLOSES | QUOTE),
        (_HYPHENS, HYPHEN | PARTS),
        (_PARTING, PARTS),
    ):
        kind[[ord(character) for character in characters]] |= flags
    return Alphabet(kind, base)


def _kind(character: str, category: str) -> int:
    if character.isspace():
        return SPACE
    if category[0] in "PC" or character in _SIGNS:
        return SIGN | (OPENS if category == "Sc" else 0)
    case = {"Ll": LOWER, "Lo": LOWER, "Lu": UPPER, "Lt": UPPER, "So": ICON | PARTS, "Sc": OPENS}.get(category, 0)
    return case | {"L": LETTER, "N": DIGIT, "M": MARK}.get(category[0], 0)


def buffers(texts: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of texts, and where each starts in them (and the last one ends)."""
    if len(texts) == 0:
        return np.zeros(1, np.uint8), np.zeros(1, np.int64)
    _, bounds, data = texts.buffers()
    offsets = np.frombuffer(bounds, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8), offsets


@compiled
def decode(data: NDArray[np.uint8], first: int, last: int, kind: Kinds, points: Points, kinds: Kinds) -> int:
    """Write the points of some bytes of UTF-8 and what each of them is, and return how many there are.

    Args:
        kind: of every point (`Alphabet`).
    """
    count, at = 0, first
    while at < last:
        point = np.int32(data[at])
        more = 0 if point < 0x80 else 1 if point < 0xE0 else 2 if point < 0xF0 else 3
        if more:
            point &= 0x3F >> more
        for _ in range(more):
            at += 1
            point = point << 6 | np.int32(data[at] & 0x3F)
        points[count], kinds[count] = point, kind[point]
        count, at = count + 1, at + 1
    return count


@compiled
def split(points: Points, kinds: Kinds, length: int, starts: Points, stops: Points) -> int:
    """Write where each word of a text starts and stops, and return how many there are.

    Args:
        length: of the text; both last arrays have room for as many words.
    """
    count = stop = 0
    while True:
        start = stop
        while start < length and kinds[start] & SPACE:
            start += 1
        if start == length:
            return count
        stop, before, seen = start, 0, 0
        while stop < length and not kinds[stop] & SPACE:
            before, seen = seen, seen | kinds[stop]
            stop += 1
        if not before & ~_PLAIN and (stop - start > 2 or not seen & ~_PLAIN):  # most words
            width = _closing(points, kinds, start, stop) if seen & ~_PLAIN else 0
            starts[count], stops[count] = start, stop - width
            count += 1
            if width:
                starts[count], stops[count] = stop - width, stop
                count += 1
            continue
        last = stop
        while start < last:
            width = _opening(points, kinds, start, last)
            if width == 0:
                break
            starts[count], stops[count] = start, start + width
            count, start = count + 1, start + width
        while start < last and not _abbreviated(points, kinds, start, last):
            width = _closing(points, kinds, start, last)
            if width == 0:
                break
            last -= width
            starts[length - (stop - last)] = width  # kept at the array's end until the words before it are known
        count = _split_core(points, kinds, start, last, starts, stops, count)
        while last < stop:
            width = starts[length - (stop - last)]
            starts[count], stops[count] = last, last + width
            count, last = count + 1, last + width


@inlined
def _split_core(points: Points, kinds: Kinds, start: int, last: int, starts: Points, stops: Points, count: int) -> int:
    """What is left between the marks at both ends, cut at the marks within; an address stays whole."""
    at = last if _is_address(points, start, last) else start + 1
    while at < last:
        width = _within(points, kinds, at, last) if kinds[at] & PARTS else 0
        if width == 0:
            at += 1
            continue
        if start < at:
            starts[count], stops[count] = start, at
            count += 1
        starts[count], stops[count] = at, at + width
        count, start = count + 1, at + width
        at = start + 1
    if start < last:
        short = _contracted(points, start, last)
        starts[count], stops[count] = start, last - short
        count += 1
        if short:
            starts[count], stops[count] = last - short, last
            count += 1
    return count


@inlined
def _opening(points: Points, kinds: Kinds, start: int, last: int) -> int:
    """Width of the mark at a word's start."""
    point = points[start]
    if point == DOT:
        dots = _dots(points, start, last)
        return dots if dots > 1 else 0
    if point == _PLUS:
        return 1 if last - start > 1 and not kinds[start + 1] & DIGIT else 0
    return 1 if kinds[start] & (OPENS | ICON) else 0


@inlined
def _closing(points: Points, kinds: Kinds, start: int, last: int) -> int:
    """Width of the mark at a word's end."""
    point = points[last - 1]
    if kinds[last - 1] & (CLOSES | ICON):
        # spaCy takes ): for a face, also where it closes a heading
        return 2 if point == _COLON and last - start > 1 and points[last - 2] == _CLOSING else 1
    if last - start < 2:
        return 0
    before = points[last - 2]
    if point == DOT:
        if before == DOT:
            dots = 2
            while last - dots > start and points[last - dots - 1] == DOT:
                dots += 1
            return dots
        ends = kinds[last - 2] & (DIGIT | LOWER | CLOSES) or (before in (_PERCENT, MINUS, _PLUS, _SQUARE))
        initials = kinds[last - 2] & UPPER and last - start > 2 and kinds[last - 3] & UPPER
        return 1 if ends or initials else 0
    if (point in (_SMALL_S, _LARGE_S)) and (before in (_APOSTROPHE, _CURLED)):
        return 2 if last - start > 2 else 0
    return 1 if point in (_PLUS, _PERCENT) and kinds[last - 2] & DIGIT else 0


@inlined
def _within(points: Points, kinds: Kinds, at: int, last: int) -> int:
    """Width of a mark that parts two words."""
    point = points[at]
    if kinds[at] & ICON or point == ELLIPSIS:
        return 1
    dots = _dots(points, at, last)
    if dots > 1:
        return dots
    if at + 1 >= last:
        return 0
    before, behind = kinds[at - 1], kinds[at + 1]
    if dots == 1:
        return 1 if before & (LOWER | QUOTE) and behind & (UPPER | QUOTE) else 0
    counted = behind & DIGIT or points[at + 1] == MINUS
    if point in (_PLUS, MINUS, _STAR, _CARET) and before & DIGIT and counted:
        return 1
    if point == _COMMA:
        return 1 if before & LETTER and behind & LETTER else 0
    if kinds[at] & HYPHEN and before & (LETTER | DIGIT):
        width = 1
        while at + width < last and width < 3 and kinds[at + width] & HYPHEN:
            width += 1
        return width if at + width < last and kinds[at + width] & LETTER else 0
    if point in (_COLON, _LESS, _MORE, _EQUALS, _SLASH):
        return 1 if before & (LETTER | DIGIT) and behind & LETTER else 0
    return 0


@inlined
def _contracted(points: Points, start: int, last: int) -> int:
    """Width of a contraction's second part: n't, 'd, 'm, 'll, 're, 've."""
    if last - start <= 3:
        return 0
    third, second, first = points[last - 3], points[last - 2], points[last - 1]
    if second in (_APOSTROPHE, _CURLED):
        if third == _N and first == _T:
            return 3
        return 2 if (first in (_D, _M)) else 0
    if third in (_APOSTROPHE, _CURLED):
        will = second == _L and first == _L
        return 3 if will or ((second in (_R, _V)) and first == _E) else 0
    return 0


@inlined
def _abbreviated(points: Points, kinds: Kinds, start: int, last: int) -> bool:
    """Whether it is letters with a dot behind each: e.g., U.S."""
    at = start
    while at + 1 < last and kinds[at] & LETTER and points[at + 1] == DOT:
        at += 2
    return at == last


@inlined
def _is_address(points: Points, start: int, last: int) -> bool:
    """Whether there is a :// in it."""
    for at in range(start, last - 2):
        if points[at] == _COLON and points[at + 1] == _SLASH and points[at + 2] == _SLASH:
            return True
    return False


@inlined
def _dots(points: Points, at: int, last: int) -> int:
    """How many dots there are in a row."""
    count = 0
    while at + count < last and points[at + count] == DOT:
        count += 1
    return count
