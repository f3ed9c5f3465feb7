"""How much of a text is said again: lines, paragraphs and runs of words, counted by their hashes.

Legend: a gram is a run of n words; it is known by a hash of the hashes of its words.

Source: Rae et al. 2021, Scaling Language Models (Gopher), table A1; counted as datatrove's GopherRepetitionFilter does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foundation_core.data.compiled import compiled, inlined
from foundation_core.data.rules.words import NEWLINE, Points

Hash = np.uint64
Hashes = NDArray[np.uint64]

_BASE = np.uint64(0x9E3779B97F4A7C15)
"""Of the number that a row of words is, a digit for each word."""


class Seen(NamedTuple):
    """A hash table that is emptied by counting up its clock.

    Args:
        keys: a power of two of them, at least twice as many as are ever put in.
        stamps: the clock when a place was taken.
        counts: how often its key came.
        clock: its time, and the number of its last place in use: a small text stays in a fast part of memory.
    """

    keys: Hashes
    stamps: Points
    counts: Points
    clock: Points


def seen(keys: int) -> Seen:
    """A table for so many keys."""
    places = 1 << (2 * max(keys, 32) - 1).bit_length()
    stamps, counts = (np.zeros(places, np.int32) for _ in range(2))
    return Seen(np.zeros(places, np.uint64), stamps, counts, np.zeros(2, np.int32))


@inlined
def mixed(hash: Hash) -> Hash:
    """A hash whose every bit depends on all bits of the given one: shifts and odd factors, as usual for 64 bits."""
    for _ in range(2):
        hash = (hash ^ (hash >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return hash ^ (hash >> np.uint64(32))


@inlined
def joined(hash: Hash, next: int) -> Hash:
    """The hash of a row, one longer."""
    return (hash ^ np.uint64(next)) * np.uint64(0x100000001B3)


@compiled
def fit(table: Seen, keys: int) -> None:
    """Use as many places as so many keys need."""
    places = 64
    while places < 2 * keys:
        places *= 2
    table.clock[1] = places - 1


@inlined
def _empty(table: Seen) -> None:
    table.clock[0] += 1


@inlined
def _put(table: Seen, key: Hash) -> int:
    """Count a key, and return its place."""
    last = np.uint64(table.clock[1])
    place = key & last
    while table.stamps[place] == table.clock[0] and table.keys[place] != key:
        place = (place + np.uint64(1)) & last
    if table.stamps[place] == table.clock[0]:
        table.counts[place] += 1
    else:
        table.stamps[place], table.keys[place], table.counts[place] = table.clock[0], key, 1
    return int(place)


@compiled
def repeated_pieces(points: Points, first: int, last: int, newlines: int, table: Seen) -> tuple[int, int, int]:
    """Of what rows of newlines part: how many pieces there are, how many came before, and their characters.

    Args:
        newlines: the fewest that part two pieces; 1 for lines, 2 for paragraphs.
    """
    _empty(table)
    pieces = repeated = characters = 0
    start = at = first
    while True:
        hash = np.uint64(0)
        gap = 0
        while at < last:
            if points[at] == NEWLINE:
                while at + gap < last and points[at + gap] == NEWLINE:
                    gap += 1
                if gap >= newlines:
                    break
                gap = 0
            hash = joined(hash, points[at])
            at += 1
        pieces += 1
        if table.counts[_put(table, mixed(hash))] > 1:
            repeated, characters = repeated + 1, characters + at - start
        if at >= last:
            return pieces, repeated, characters
        start = at = at + gap


@compiled
def add_up(hashes: Hashes, starts: Points, stops: Points, words: int, sums: Hashes, characters: Points) -> None:
    """Write the hash of the first 0, 1, 2, ... words, and how many characters they have: what lies between two of them
    is the hash and the length of any gram.
    """
    sums[0], characters[0] = 0, 0
    for word in range(words):
        sums[word + 1] = sums[word] * _BASE + hashes[word]
        characters[word + 1] = characters[word] + stops[word] - starts[word]


@compiled
def top_gram(
    sums: Hashes, characters: Points, words: int, n: int, table: Seen, repeated: Points, count: int, places: Points
) -> tuple[int, int]:
    """Characters of the gram that comes most often, all its occurrences, a space between two words; 0 if there is none.

    Of grams that come equally often it is the one that comes first. A gram is looked up only where the shorter ones in
    it are repeated: elsewhere it comes once.

    Args:
        repeated: where the first `count` grams of n - 1 words are that come more than once, in their order; those of n
            words are written over them, and how many there are is returned beside.
        places: room for as many numbers as there are words.
    """
    if words < n:
        return 0, 0
    _empty(table)
    lead = power(n)
    grams = 0
    for which in range(count - 1):
        at = repeated[which]
        if repeated[which + 1] == at + 1:
            repeated[grams], places[grams] = at, _put(table, mixed(sums[at + n] - sums[at] * lead))
            grams += 1
    most, best, kept = 1, 0, 0
    for which in range(grams):
        at, often = repeated[which], table.counts[places[which]]
        if often > most:
            most, best = often, at
        if often > 1:
            repeated[kept] = at
            kept += 1
    return (characters[best + n] - characters[best] + n - 1) * most, kept


@compiled
def repeated_grams(
    sums: Hashes, characters: Points, words: int, n: int, table: Seen, repeated: Points, count: int, shorter: int
) -> int:
    """Characters of the grams that came before; one that did is stepped over, so that none is counted twice.

    Args:
        repeated: where the grams of `shorter` words are that come more than once, in their order: a gram in which one
            of them comes once comes once too, and is not looked up.
    """
    _empty(table)
    found = free = 0
    lead = power(n)
    run = n - shorter
    for which in range(count - run):
        at = repeated[which]
        if at < free or repeated[which + run] != at + run:
            continue
        if table.counts[_put(table, mixed(sums[at + n] - sums[at] * lead))] > 1:
            found += characters[at + n] - characters[at]
            free = at + n
    return found


@inlined
def power(n: int) -> Hash:
    """What the hash of a row is multiplied with when n words follow."""
    product = np.uint64(1)
    for _ in range(n):
        product *= _BASE
    return product
