"""What the published rules of quality measure of a text, all in one compiled pass over its characters.

    texts --decode, split--> words --hash--> counts of words, lines, paragraphs and grams --> a column for each measure

Counted as datatrove's GopherQualityFilter and GopherRepetitionFilter do, but for words of the lists that spaCy has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foundation_core.data.compiled import compiled
from foundation_core.data.rules.repetition import (
    Hash,
    Hashes,
    Seen,
    add_up,
    fit,
    joined,
    mixed,
    repeated_grams,
    repeated_pieces,
    seen,
    top_gram,
)
from foundation_core.data.rules.words import (
    DOT,
    ELLIPSIS,
    LETTER,
    MINUS,
    NEWLINE,
    SIGN,
    SPACE,
    Kinds,
    Points,
    alphabet,
    buffers,
    decode,
    split,
)

COLUMNS = (
    "words", "mean_word_characters", "hash_ratio", "ellipsis_ratio", "bullet_line_fraction", "ellipsis_line_fraction",
    "alphabetic_word_fraction", "stop_words", "repeated_paragraph_fraction", "repeated_paragraph_characters",
    "repeated_line_fraction", "repeated_line_characters",
    "top_2_gram", "top_3_gram", "top_4_gram", "repeated_5_grams", "repeated_6_grams", "repeated_7_grams",
    "repeated_8_grams", "repeated_9_grams", "repeated_10_grams",
)  # fmt: skip
"""words: that are not punctuation alone. ratio: occurrences for each word, punctuation counted as words. stop_words:
different ones of the list. characters, grams: as a share of the text's characters. 0 where there is nothing."""

_WORDS, _LINES, _REPEATED, _TOP_GRAMS, _REPEATED_GRAMS = 0, 4, 8, 12, 15
"""The first column of each part of the pass."""

_NUMBER_SIGN, _BULLET = map(ord, "#•")


@dataclass(frozen=True)
class Quality:
    """One column of the pass: a measure of texts.

    Args:
        stop_words: those that are counted; measures of one list share one pass.
    """

    name: str
    stop_words: tuple[str, ...] = ()

    def __call__(self, texts: pa.Array) -> pa.Array:
        """One double for each text."""
        return pa.array(_measured(texts, self.stop_words)[:, COLUMNS.index(self.name)])


def __getattr__(name: str) -> Quality:
    """Each column is a registered measure under its own name."""
    if name in COLUMNS:
        return Quality(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Last(NamedTuple):
    """The texts that were measured last: several rules ask for the same ones in turn."""

    texts: pa.Array
    stop_words: tuple[str, ...]
    found: NDArray[np.float64]


_last: list[_Last] = []


def _measured(texts: pa.Array, stop_words: tuple[str, ...]) -> NDArray[np.float64]:
    if not _last or _last[0].texts is not texts or _last[0].stop_words != stop_words:
        _last[:] = [_Last(texts, stop_words, measure(texts, stop_words))]
    return _last[0].found


def measure(texts: pa.Array, stop_words: Sequence[str] = ()) -> NDArray[np.float64]:
    """The measures of each text, (texts, COLUMNS).

    Args:
        texts: large_string.
    """
    known = alphabet()
    data, offsets = buffers(texts)
    found = np.zeros((len(texts), len(COLUMNS)))
    if len(texts):
        longest = int(np.diff(offsets).max())
        _measure(data, offsets, known.kind, _hashes_of(stop_words), seen(longest + 3), found)
    return found


def _hashes_of(words: Sequence[str]) -> Hashes:
    found = np.zeros(len(words), np.uint64)
    for place, word in enumerate(words):
        points = np.array([ord(character) for character in word], np.int32)
        found[place] = _hash(points, 0, len(points))
    return found


@compiled
def _hash(points: Points, start: int, stop: int) -> Hash:
    hash = np.uint64(0)
    for at in range(start, stop):
        hash = joined(hash, points[at])
    return mixed(hash)


@compiled
def _measure(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    kind: Kinds,
    stop_words: Hashes,
    table: Seen,
    found: NDArray[np.float64],
) -> None:
    longest = np.max(offsets[1:] - offsets[:-1])
    points, starts, stops, reach = np.empty((4, longest + 1), np.int32)
    kinds, hashes = np.empty(longest, np.uint16), np.empty(longest, np.uint64)
    sums = np.empty(longest + 1, np.uint64)
    for text in range(len(offsets) - 1):
        length = decode(data, offsets[text], offsets[text + 1], kind, points, kinds)
        words = split(points, kinds, length, starts, stops)
        for word in range(words):
            hashes[word] = _hash(points, starts[word], stops[word])
        add_up(hashes, starts, stops, words, sums, reach)
        row = found[text]
        _describe_words(points, starts, stops, words, kinds, row[_WORDS:])
        row[_WORDS + 7] = _different(hashes, words, stop_words)
        _describe_marks(points, length, words, row[_WORDS + 2 :])
        lines = _describe_lines(points, length, kinds, row[_LINES:])
        fit(table, words + lines + 2)
        _describe_repetition(points, length, kinds, table, row[_REPEATED:])
        share = 1 / max(length, 1)
        places, repeated, count = starts, stops, words  # where words are is not needed any more
        for word in range(words):
            repeated[word] = word
        for n in range(2, 5):
            characters, count = top_gram(sums, reach, words, n, table, repeated, count, places)
            row[_TOP_GRAMS + n - 2] = characters * share
        for n in range(5, 11):
            characters = repeated_grams(sums, reach, words, n, table, repeated, count, 4)
            row[_REPEATED_GRAMS + n - 5] = characters * share


@compiled
def _describe_words(
    points: Points, starts: Points, stops: Points, words: int, kinds: Kinds, row: NDArray[np.float64]
) -> None:
    """words, mean_word_characters, alphabetic_word_fraction."""
    spoken = characters = alphabetic = 0
    for word in range(words):
        letters = others = False
        for at in range(starts[word], stops[word]):
            letters |= kinds[at] & LETTER != 0
            others |= kinds[at] & SIGN == 0
        alphabetic += letters
        if others:
            spoken, characters = spoken + 1, characters + stops[word] - starts[word]
    row[0], row[1], row[6] = spoken, characters / max(spoken, 1), alphabetic / max(words, 1)


@compiled
def _different(hashes: Hashes, words: int, wanted: Hashes) -> int:
    """How many of the wanted words are there."""
    count = 0
    for hash in wanted:
        for word in range(words):
            if hashes[word] == hash:
                count += 1
                break
    return count


@compiled
def _describe_marks(points: Points, length: int, words: int, row: NDArray[np.float64]) -> None:
    """hash_ratio, ellipsis_ratio; three dots are an ellipsis, six are two."""
    hashes = ellipses = dots = 0
    for at in range(length):
        hashes += points[at] == _NUMBER_SIGN
        ellipses += points[at] == ELLIPSIS
        dots = dots + 1 if points[at] == DOT else 0
        if dots == 3:
            ellipses, dots = ellipses + 1, 0
    row[0], row[1] = hashes / max(words, 1), ellipses / max(words, 1)


@compiled
def _describe_lines(points: Points, length: int, kinds: Kinds, row: NDArray[np.float64]) -> int:
    """bullet_line_fraction, ellipsis_line_fraction; returns how many lines there are."""
    lines = bullets = ellipses = start = 0
    while start < length:
        stop = start
        while stop < length and points[stop] != NEWLINE:
            stop += 1
        lines += 1
        first, last = start, stop
        while first < last and kinds[first] & SPACE:
            first += 1
        while last > first and kinds[last - 1] & SPACE:
            last -= 1
        if first < last:
            bullets += points[first] == _BULLET or points[first] == MINUS
            dots = last - first >= 3 and points[last - 1] == points[last - 2] == points[last - 3] == DOT
            ellipses += dots or points[last - 1] == ELLIPSIS
        start = stop + 1
    row[0], row[1] = bullets / max(lines, 1), ellipses / max(lines, 1)
    return lines


@compiled
def _describe_repetition(points: Points, length: int, kinds: Kinds, table: Seen, row: NDArray[np.float64]) -> None:
    """The share of repeated paragraphs and of their characters; of lines and theirs."""
    first, last = 0, length
    while first < last and kinds[first] & SPACE:
        first += 1
    while last > first and kinds[last - 1] & SPACE:
        last -= 1
    pieces, repeated, characters = repeated_pieces(points, first, last, 2, table)
    row[0], row[1] = repeated / pieces, characters / max(length, 1)
    pieces, repeated, characters = repeated_pieces(points, 0, length, 1, table)
    row[2], row[3] = repeated / pieces, characters / max(length, 1)
