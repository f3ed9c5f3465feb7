"""Rows made in one pass of machine code: the same numbers as pieces.py and packing.py give by torch, with numba.

    row --cells--> shard, row of it --documents or plan--> pieces --> tokens, segment, position, each written once

Every shard that a batch touches costs torch some twenty small operations; here it costs none.

Legend: N rows, C cells, D documents, P pieces, T context tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation_core.data.compiled import compiled, inlined, int32_at, int64_at

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

TOKENS, BOUNDS, STARTS, LENGTHS, COUNT = range(5)
"""What a cell says: the address of its shard's int32 tokens, those of its plan's arrays, and how long the first one is.

of `cut`    (D + 1,) int64 where documents begin, end to end; (D,) int64 where they begin in the shard
of others   (rows + 1,) int32 first pieces of rows; (P,) int32 where pieces begin in the shard; (P,) int32 their tokens
"""


@compiled
def gather_cut(
    rows: Int64s, ends: Int64s, cells: Int64s, context_tokens: int, tokens: Int32s, segment: Int32s, position: Int32s
) -> None:
    """Write the rows that begin each T tokens of the documents of a cell end to end.

    Args:
        rows: (N,) their numbers.
        ends: (C,) rows of this cell and of all before it.
        cells: (C, 5) what cells say.
        tokens, segment, position: (N, T + 1), written.
    """
    for number in range(len(rows)):
        cell = _above(ends, rows[number])
        source = int32_at(cells[cell, TOKENS], 1 << 31)
        documents = cells[cell, COUNT] - 1
        bounds, starts = int64_at(cells[cell, BOUNDS], documents + 1), int64_at(cells[cell, STARTS], documents)
        begin = bounds[0] + (rows[number] - (ends[cell - 1] if cell else 0)) * context_tokens
        end = min(begin + context_tokens + 1, bounds[documents])
        document, place, piece = _above(bounds, begin) - 1, 0, 0
        while begin < end:
            until = min(end, bounds[document + 1])
            if until > begin:  # a document may be empty
                first = starts[document] + begin - bounds[document]
                _write(source, first, until - begin, piece, place, tokens[number], segment[number], position[number])
            place, begin = place + until - begin, until
            document, piece = document + 1, piece + 1
        _pad(place, tokens[number], segment[number], position[number])


@compiled
def gather_packed(rows: Int64s, ends: Int64s, cells: Int64s, tokens: Int32s, segment: Int32s, position: Int32s) -> None:
    """Write rows whose pieces are written down; arguments as of `gather_cut`."""
    for number in range(len(rows)):
        cell = _above(ends, rows[number])
        source = int32_at(cells[cell, TOKENS], 1 << 31)
        count = cells[cell, COUNT]
        bounds = int32_at(cells[cell, BOUNDS], count)
        row = rows[number] - (ends[cell - 1] if cell else 0)
        first, last, place = bounds[row], bounds[row + 1], 0
        starts, lengths = int32_at(cells[cell, STARTS], last), int32_at(cells[cell, LENGTHS], last)
        for piece in range(first, last):
            _write(
                source, starts[piece], lengths[piece], piece - first, place,
                tokens[number], segment[number], position[number],
            )  # fmt: skip
            place += lengths[piece]
        _pad(place, tokens[number], segment[number], position[number])


@compiled
def best_fit(sizes: Int64s, capacity: int, first: int, found: Int64s) -> int:
    """Write the row of each piece, and return the next free row: `pieces.best_fit` of sizes from large to small.

    Rows with the same room are a stack, linked from the newest to the oldest; a bit for each room says whether there
    are any.
    """
    newest = np.full(capacity + 1, -1, np.int64)
    below = np.empty(len(sizes), np.int64)
    words = np.zeros((capacity >> 6) + 1, np.uint64)
    rows = 0
    for number in range(len(sizes)):
        size = sizes[number]
        room = _lowest_from(words, size)
        if room < 0:
            room, row = capacity, rows
            rows += 1
        else:
            row = newest[room]
            newest[room] = below[row]
            if newest[room] < 0:
                words[room >> 6] ^= np.uint64(1) << np.uint64(room & 63)
        found[number] = first + row
        left = room - size
        below[row], newest[left] = newest[left], row
        if left:
            words[left >> 6] |= np.uint64(1) << np.uint64(left & 63)
    return first + rows


@inlined
def _write(
    source: Int32s, first: int, length: int, piece: int, place: int, tokens: Int32s, segment: Int32s, position: Int32s
) -> None:
    """Write one piece; the views let the compiler see that no index is negative, and so use the wide registers."""
    read = source[first : first + length]
    token, number, at = tokens[place:][:length], segment[place:][:length], position[place:][:length]
    for step in range(length):
        token[step] = read[step]
        number[step] = piece
        at[step] = step


@inlined
def _pad(place: int, tokens: Int32s, segment: Int32s, position: Int32s) -> None:
    tokens[place:], segment[place:], position[place:] = 0, -1, 0


@inlined
def _above(rising: Int64s, value: int) -> int:
    """How many of the numbers are not above the value."""
    low, high = 0, len(rising)
    while low < high:
        middle = (low + high) >> 1
        if rising[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def _lowest_from(words: NDArray[np.uint64], bit: int) -> int:
    """The lowest bit that is set, from one on; -1 if none is."""
    at = bit >> 6
    word = words[at] & (~np.uint64(0) << np.uint64(bit & 63))
    while word == 0:
        at += 1
        if at == len(words):
            return -1
        word = words[at]
    return (at << 6) + _trailing_zeros(word)


@inlined
def _trailing_zeros(word: np.uint64) -> int:
    count = 0
    for step in (32, 16, 8, 4, 2, 1):
        if word & ((np.uint64(1) << np.uint64(step)) - np.uint64(1)) == 0:
            word >>= np.uint64(step)
            count += step
    return count
