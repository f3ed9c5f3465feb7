"""What the published rules for pages of the web measure of a text, in one compiled pass over its characters.

    texts --decode--> lines --> sentences, brackets, placeholder text, end marks, short and repeated lines --> columns

Counted as datatrove's C4QualityFilter and FineWebQualityFilter do, but for words of the lists that spaCy has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foundation_core.data.compiled import compiled, inlined
from foundation_core.data.rules.repetition import Seen, fit, repeated_pieces, seen
from foundation_core.data.rules.words import NEWLINE, SIGN, SPACE, Kinds, Points, alphabet, buffers, decode, split
from foundation_core.specs.quality import FineWebSpec

COLUMNS = (
    "sentences", "curly_brackets", "lorem_ipsum",
    "end_marked_line_fraction", "short_line_fraction", "repeated_filled_line_characters", "newlines_a_word",
)  # fmt: skip
"""Lines are those that are not blank, but for sentences, which end with any line. curly_brackets: opening ones.
repeated_filled_line_characters: as a share of the text's characters, newlines left out. 0 where there is nothing."""

_BRACKET, _LAST_CAPITAL, _FIRST_CAPITAL, _TO_SMALL = ord("{"), ord("Z"), ord("A"), ord("a") - ord("A")
_STOP, _CALL, _ASK = map(ord, ".!?")
_PLACEHOLDER = np.array([ord(letter) for letter in "lorem ipsum"], np.int32)
_DEFAULT = FineWebSpec()


@dataclass(frozen=True)
class Page:
    """One column of the pass: a measure of texts.

    Args:
        spec: what a short line and an end mark are; measures of one spec share one pass.
    """

    name: str
    spec: FineWebSpec = _DEFAULT

    def __call__(self, texts: pa.Array) -> pa.Array:
        """One double for each text."""
        return pa.array(_measured(texts, self.spec)[:, COLUMNS.index(self.name)])


def __getattr__(name: str) -> Page:
    """Each column is a registered measure under its own name."""
    if name in COLUMNS:
        return Page(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Last(NamedTuple):
    """The texts that were measured last: several rules ask for the same ones in turn."""

    texts: pa.Array
    spec: FineWebSpec
    found: NDArray[np.float64]


_last: list[_Last] = []


def _measured(texts: pa.Array, spec: FineWebSpec) -> NDArray[np.float64]:
    if not _last or _last[0].texts is not texts or _last[0].spec != spec:
        _last[:] = [_Last(texts, spec, measure(texts, spec))]
    return _last[0].found


def measure(texts: pa.Array, spec: FineWebSpec = _DEFAULT) -> NDArray[np.float64]:
    """The measures of each text, (texts, COLUMNS).

    Args:
        texts: large_string.
    """
    data, offsets = buffers(texts)
    found = np.zeros((len(texts), len(COLUMNS)))
    if len(texts):
        marks = np.array([ord(mark) for mark in spec.end_marks], np.int32)
        table = seen(int(np.diff(offsets).max()) + 3)
        _measure(data, offsets, alphabet().kind, marks, spec.short_line_characters, table, _PLACEHOLDER, found)
    return found


@compiled
def _measure(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    kind: Kinds,
    marks: Points,
    short: int,
    table: Seen,
    placeholder: Points,
    found: NDArray[np.float64],
) -> None:
    longest = np.max(offsets[1:] - offsets[:-1])
    points, starts, stops, filled = np.empty((4, longest + 1), np.int32)
    kinds = np.empty(longest, np.uint16)
    for text in range(len(offsets) - 1):
        length = decode(data, offsets[text], offsets[text + 1], kind, points, kinds)
        words = split(points, kinds, length, starts, stops)
        row = found[text]
        row[0] = _sentences(points, kinds, starts, stops, words)
        newlines = 0
        for at in range(length):
            newlines += points[at] == NEWLINE
            row[1] += points[at] == _BRACKET
            row[2] += _stands_at(placeholder, points, at, length)
        lines, reach = _describe_lines(points, kinds, length, marks, short, filled, row[3:])
        fit(table, lines + 2)
        _, _, characters = repeated_pieces(filled, 0, reach, 1, table)
        row[5], row[6] = characters / max(length - newlines, 1), newlines / max(words, 1)


@compiled
def _sentences(points: Points, kinds: Kinds, starts: Points, stops: Points, words: int) -> int:
    """Sentences end with a line, or with a full stop, ! or ? before anything but punctuation."""
    sentences = end = 0
    closed = False
    for word in range(words):
        start, begins = starts[word], word == 0
        for at in range(end, start):
            begins |= points[at] == NEWLINE
        end = stops[word]
        mark = points[start]
        closes = end - start == 1 and mark in (_STOP, _CALL, _ASK)
        if begins or (closed and not closes and not _is_punctuation(kinds, start, end)):
            sentences, closed = sentences + 1, False
        closed |= closes
    return sentences


@inlined
def _is_punctuation(kinds: Kinds, start: int, stop: int) -> bool:
    signs = 0
    for at in range(start, stop):
        signs += kinds[at] & SIGN != 0
    return signs == stop - start


@inlined
def _stands_at(phrase: Points, points: Points, start: int, length: int) -> bool:
    """Whether a phrase in small letters of ASCII stands there, in letters of any size."""
    if start + len(phrase) > length:
        return False
    for at in range(len(phrase)):
        point = points[start + at]
        if point >= _FIRST_CAPITAL and point <= _LAST_CAPITAL:
            point += _TO_SMALL
        if point != phrase[at]:
            return False
    return True


@compiled
def _describe_lines(
    points: Points, kinds: Kinds, length: int, marks: Points, short: int, filled: Points, row: NDArray[np.float64]
) -> tuple[int, int]:
    """end_marked_line_fraction, short_line_fraction; returns how many lines are not blank, and how long all are.

    Args:
        filled: they are written there, one behind the other.
    """
    lines = marked = shorts = reach = start = 0
    while start < length:
        stop, blank = start, True
        while stop < length and points[stop] != NEWLINE:
            blank &= kinds[stop] & SPACE != 0
            stop += 1
        if not blank:
            lines += 1
            shorts += stop - start <= short
            for mark in marks:
                marked += points[stop - 1] == mark
            if reach:
                filled[reach] = NEWLINE
                reach += 1
            filled[reach : reach + stop - start] = points[start:stop]
            reach += stop - start
        start = stop + 1
    row[0], row[1] = marked / max(lines, 1), shorts / max(lines, 1)
    return lines, reach
