"""Which texts say nearly the same: the runs of words that they share, and sketches that find such texts among many.

    text --split, fold--> words --runs of n--> shingles (hashes) --smallest in each of P orders--> signature --> keys

Two texts agree in an entry of their signatures as often as they share shingles (Broder 1997). A band is some entries
together: texts that share the key of a band are compared, shingle by shingle, and only that comparison decides.

Words are folded before they are hashed: small letters without diacritics, each row of digits as one 0, no punctuation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foundation_core.data.compiled import compiled, inlined
from foundation_core.data.rules.repetition import Hash, Hashes, joined, mixed, power
from foundation_core.data.rules.words import DIGIT, LETTER, Kinds, Points, alphabet, buffers, decode, split
from foundation_core.specs import FuzzyDedupSpec

_NONE = np.uint32(0xFFFFFFFF)
_ZERO = ord("0")


@dataclass(frozen=True)
class Sketch:
    """What is computed of each text to find those that say nearly the same."""

    shingle_words: int
    bands: int
    band_rows: int

    @staticmethod
    def of(spec: FuzzyDedupSpec) -> Sketch:
        """The sketch that a spec asks for."""
        return Sketch(spec.shingle_words, spec.bands, spec.band_rows)

    def __call__(self, texts: pa.Array) -> pa.FixedSizeListArray:
        """The keys of each text's bands (uint64); null for a text without a word.

        Args:
            texts: large_string.
        """
        keys, words = np.zeros((len(texts), self.bands), np.uint64), np.zeros(len(texts), np.bool_)
        data, offsets = buffers(texts)
        known = alphabet()
        orders = _orders(self.bands * self.band_rows)
        _sketch(data, offsets, known.kind, known.base, self.shingle_words, orders, keys, words)
        return pa.FixedSizeListArray.from_arrays(pa.array(keys.reshape(-1)), self.bands, mask=pa.array(~words))

    def shingles(self, text: str) -> Hashes:
        """The different shingles of a text, sorted."""
        data, offsets = buffers(pa.array([text], pa.large_string()))
        known = alphabet()
        found = np.empty(max(len(data), 1), np.uint64)
        count = _shingles_of(data, 0, offsets[1], known.kind, known.base, self.shingle_words, found)
        return np.unique(found[:count])


def similarity(first: Hashes, second: Hashes) -> float:
    """Jaccard's: the share of two texts' shingles that both have; 0 where neither has any."""
    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / max(len(first) + len(second) - both, 1)


@cache
def _orders(count: int) -> NDArray[np.uint32]:
    """As many functions x -> a x + b of 32-bit numbers, each an order of its own; the same in every process."""
    numbers = np.array([mixed(np.uint64(number + 1)) >> np.uint64(32) for number in range(2 * count)], np.uint32)
    numbers[:count] |= np.uint32(1)
    return numbers.reshape(2, count)


@compiled
def _sketch(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    kind: Kinds,
    base: Points,
    n: int,
    orders: NDArray[np.uint32],
    keys: Hashes,
    words: NDArray[np.bool_],
) -> None:
    """Write the keys of each text's bands, and which texts have a word."""
    multiply, add = orders
    longest = 1
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    shingles = np.empty(longest, np.uint64)
    numbers, smallest = np.empty(longest, np.uint32), np.empty(len(multiply), np.uint32)
    rows = len(multiply) // keys.shape[1]
    for text in range(len(offsets) - 1):
        count = _shingles_of(data, offsets[text], offsets[text + 1], kind, base, n, shingles)
        words[text] = count > 0
        for at in range(count):
            numbers[at] = shingles[at] >> np.uint64(32)
        for order in range(len(multiply)):
            smallest[order] = _smallest(numbers, count, multiply[order], add[order])
        for band in range(keys.shape[1]):
            key = np.uint64(band)
            for entry in smallest[band * rows : (band + 1) * rows]:
                key = joined(key, entry)
            keys[text, band] = mixed(key)


@inlined
def _smallest(numbers: NDArray[np.uint32], count: int, multiply: np.uint32, add: np.uint32) -> np.uint32:
    """The smallest number in an order."""
    smallest = _NONE
    for at in range(count):
        smallest = min(smallest, np.uint32(numbers[at] * multiply + add))
    return smallest


@compiled
def _shingles_of(
    data: NDArray[np.uint8], first: int, last: int, kind: Kinds, base: Points, n: int, shingles: Hashes
) -> int:
    """Write the shingles of a text in their order, and return how many there are; a short text is one."""
    points, starts, stops = np.empty((3, last - first + 1), np.int32)
    kinds = np.empty(last - first + 1, np.uint16)
    length = decode(data, first, last, kind, points, kinds)
    words = split(points, kinds, length, starts, stops)
    sums = np.empty(words + 1, np.uint64)
    sums[0] = 0
    count = 0
    for word in range(words):
        hash = _folded(points, kinds, starts[word], stops[word], base)
        if hash:
            sums[count + 1] = sums[count] * power(1) + hash
            count += 1
    if count == 0:
        return 0
    run = min(n, count)
    lead = power(run)
    for at in range(count - run + 1):
        shingles[at] = mixed(sums[at + run] - sums[at] * lead)
    return int(count - run + 1)


@compiled
def _folded(points: Points, kinds: Kinds, start: int, stop: int, base: Points) -> Hash:
    """The hash of a word's letters and digits; 0 if there are none."""
    hash, digits = np.uint64(0), False
    for at in range(start, stop):
        if kinds[at] & LETTER:
            hash, digits = joined(hash, base[points[at]]), False
        elif kinds[at] & DIGIT:
            hash, digits = (hash if digits else joined(hash, _ZERO)), True
    return mixed(hash) if hash else hash
