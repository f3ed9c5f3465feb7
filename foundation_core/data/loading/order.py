"""The order of samples as a function: which record is the n-th of a run, for every n, without any stored state.

Each epoch is a permutation of the records, made by a keyed Feistel network over the smallest even-bit domain that
holds them; an index that falls outside is sent through again until it falls inside (cycle walking).

Source: Luby and Rackoff, How to construct pseudorandom permutations from pseudorandom functions, 1988;
Black and Rogaway, Ciphers with arbitrary finite domains, 2002.
"""

from __future__ import annotations

import hashlib
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

_AHEAD_TAKES, _AHEAD_SAMPLES = 32, 16_384
_ROUNDS = 6  # four suffice for large domains; the small ones of small corpora mix better with two more


class SampleOrder(ABC):
    """Which record is the n-th sample of a run."""

    @abstractmethod
    def take(self, start: int, count: int) -> Tensor:
        """Record indices of samples start, start + 1, ..., (count,) int64."""

    @abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """All that decides which record is the n-th, for every n, as JSON."""

    def digest(self, count: int) -> str:
        """Hex sha256 of the first `count` record indices."""
        return hashlib.sha256(struct.pack(f"<{count}q", *self.take(0, count).tolist())).hexdigest()


@dataclass(frozen=True)
class Order(SampleOrder):
    """The order of a run over `size` records: a new permutation each epoch, the same for the same seed."""

    size: int
    seed: int

    def take(self, start: int, count: int) -> Tensor:
        """Record indices of samples start, start + 1, ..., (count,) int64; an epoch is `size` samples."""
        parts, end = [torch.empty(0, dtype=torch.int64)], start + count
        while start < end:
            epoch, first = divmod(start, self.size)
            last = min(self.size, first + end - start)
            parts.append(_permuted(torch.arange(first, last), self.size, _keys(self.seed, epoch)))
            start += last - first
        return torch.cat(parts)

    def facts(self) -> Mapping[str, Any]:
        """Its size and seed."""
        return asdict(self)


class Ahead(SampleOrder):
    """The same order, found for many samples at once: that costs hardly more than it costs for a few."""

    def __init__(self, order: SampleOrder) -> None:
        self.order = order
        self._first, self._found = 0, torch.empty(0, dtype=torch.int64)

    def take(self, start: int, count: int) -> Tensor:
        """Record indices of samples start, start + 1, ..., (count,) int64."""
        if not self._first <= start <= start + count <= self._first + len(self._found):
            ahead = max(count, min(_AHEAD_TAKES * count, _AHEAD_SAMPLES))
            self._first, self._found = start, self.order.take(start, ahead)
        return self._found[start - self._first :][:count]

    def facts(self) -> Mapping[str, Any]:
        """Those of the order."""
        return self.order.facts()


def _keys(seed: int, epoch: int) -> tuple[int, ...]:
    digest = hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=4 * _ROUNDS).digest()
    return struct.unpack(f"<{_ROUNDS}I", digest)


def _permuted(index: Tensor, size: int, keys: tuple[int, ...]) -> Tensor:
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    if len(index) > mask:  # a round has fewer arguments than there are indices: each is found once
        tables = [_round(key, mask, torch.arange(mask + 1)) for key in keys]
        rounds: list[Callable[[Tensor], Tensor]] = [partial(table.index_select, 0) for table in tables]
    else:
        rounds = [partial(_round, key, mask) for key in keys]
    index = _feistel(index, half_bits, rounds)
    while len(outside := (index >= size).nonzero().squeeze(1)):
        index[outside] = _feistel(index[outside], half_bits, rounds)
    return index


def _round(key: int, mask: int, half: Tensor) -> Tensor:
    return mixed(half ^ key) & mask


def _feistel(index: Tensor, half_bits: int, rounds: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    left, right = index >> half_bits, index & ((1 << half_bits) - 1)
    for mix in rounds:
        left, right = right, left ^ mix(right)
    return (left << half_bits) | right


def mixed(word: Tensor) -> Tensor:
    """A 32-bit word whose bits depend on all bits of the given one; factors of 31 bits keep int64 from overflowing."""
    for factor in (0x7FEB352D, 0x45D9F3B):
        word = ((word ^ (word >> 16)) * factor) & 0xFFFFFFFF
    return word ^ (word >> 15)
