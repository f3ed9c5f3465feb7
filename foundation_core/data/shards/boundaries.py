"""Where rows of documents are cut into pieces: by hashes of their ids, so that a change moves only the cuts beside it.

    a b c d | e f g | h i j k        the hash of d says that a piece ends with it, and that of g
    a b x c d | e f g | h i j k      x joined: one piece is another, all others are what they were

A hash ends a piece every 4/3 of the wanted size on average. Where none does before twice the size is reached, the piece
ends with the document of the smallest hash in its second half; that choice too stays the same when a document joins or
leaves. Both together make pieces of the wanted size on average.

Source: content-defined chunking with a backup cut (TTTD: Eshghi and Tang 2005), by whole documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

Thing = TypeVar("Thing")

_HASH_BYTES = 8
_LIMIT = 1 << 8 * _HASH_BYTES
_BETWEEN = 4, 3
"""Mean distance of two ends that hashes set, as a fraction of the wanted size."""
_MOST = 2


class _Waiting(NamedTuple):
    """A document of the piece that is not ended yet, and the size of the piece up to it."""

    hash: int
    reached: int


class Cutter:
    """Ends pieces as documents come.

    Args:
        size: of an average piece. None has more than twice as much, but for a single document that has.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: list[_Waiting] = []

    def add(self, document: str, size: int) -> list[int]:
        """The next document: of how many waiting documents each piece is that ends now, this one included or not.

        Args:
            size: of the document.
        """
        ended = list[int]()
        while self._waiting and self._reached + size > _MOST * self._size:
            ended.append(self._take(self._backup()))
        place = int.from_bytes(hashlib.blake2b(document.encode(), digest_size=_HASH_BYTES).digest(), "big")
        self._waiting.append(_Waiting(place, self._reached + size))
        between, of = _BETWEEN
        if place * between * self._size < of * size * _LIMIT:
            ended.append(self._take(len(self._waiting)))
        return ended

    @property
    def _reached(self) -> int:
        return self._waiting[-1].reached if self._waiting else 0

    def _backup(self) -> int:
        """How many of the waiting documents are the piece, where no hash ended it in time."""
        late = [(one.hash, number) for number, one in enumerate(self._waiting, 1) if one.reached >= self._size]
        return min(late)[1] if late else len(self._waiting)

    def _take(self, count: int) -> int:
        size = self._waiting[count - 1].reached
        self._waiting = [_Waiting(one.hash, one.reached - size) for one in self._waiting[count:]]
        return count


def cut(things: Iterable[Thing], size: int, measure: Callable[[Thing], tuple[str, int]]) -> Iterator[tuple[Thing, ...]]:
    """The things in pieces.

    Args:
        size: of an average piece.
        measure: the document id and the size of a thing.
    """
    cutter, waiting = Cutter(size), list[Thing]()
    for thing in things:
        waiting.append(thing)
        for count in cutter.add(*measure(thing)):
            yield tuple(waiting[:count])
            waiting = waiting[count:]
    if waiting:
        yield tuple(waiting)
