"""Several sources in given proportions as one order of samples: which record is the n-th, without any stored state.

    weights 3, 2, 1:   a b a c b a | a b a c b a | ...        each source in an order of its own

One period is made once, and says for each of its places the source and how many of it came before: the n-th sample is
arithmetic. In any run of n samples a source comes up less than 1 more or less often than its weight says if the run
begins with a period, and less than 2 wherever it begins.

Source: Tijdeman 1980, The chairman assignment problem: of the sources that are due, the one whose time ends first.

Legend: K sources, M places of a period.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from foundation_core.data.loading.order import Order, SampleOrder


@dataclass(frozen=True)
class Phase:
    """Weights from a sample on.

    Args:
        first: number of the first sample that has them.
        parts: (K,) whole-numbered weights.
    """

    first: int
    parts: tuple[int, ...]


class Mixture(SampleOrder):
    """The order of a run over the records of several sources, which are numbered one source after the other.

    Args:
        sizes: records of each source, by its name.
        phases: the first one begins with sample 0. A change of weights goes on in each source where it was.
    """

    def __init__(self, sizes: Mapping[str, int], phases: Sequence[Phase], seed: int) -> None:
        self.sizes, self.phases, self.seed = dict(sizes), phases, seed
        self._firsts = [0, *accumulate(sizes.values())]
        self._orders = [Order(size, _seed_of(name, seed)) for name, size in sizes.items()]
        self._periods = [_Period(phase.parts) for phase in phases]
        self._before = [torch.zeros(len(sizes), dtype=torch.int64)]  # what each source gave before each phase
        for period, phase, then in zip(self._periods, phases, phases[1:], strict=False):
            self._before.append(self._before[-1] + period.counts(then.first - phase.first))

    def take(self, start: int, count: int) -> Tensor:
        """Record numbers of samples start, start + 1, ..., (count,) int64."""
        parts, end = [torch.empty(0, dtype=torch.int64)], start + count
        lasts = [phase.first for phase in self.phases[1:]] + [end]
        for phase, period, before, last in zip(self.phases, self._periods, self._before, lasts, strict=True):
            first, last = max(start, phase.first), min(end, last)
            if first < last:
                parts.append(self._taken(period, before, first - phase.first, last - phase.first))
        return torch.cat(parts)

    def facts(self) -> Mapping[str, Any]:
        """Its sources in their order, its phases and its seed."""
        sizes = [[name, size] for name, size in self.sizes.items()]
        return {"sizes": sizes, "phases": [asdict(phase) for phase in self.phases], "seed": self.seed}

    def counts(self, samples: int) -> Tensor:
        """(K,) how many of the first samples are of each source."""
        number = max(at for at, phase in enumerate(self.phases) if phase.first <= samples)
        return self._before[number] + self._periods[number].counts(samples - self.phases[number].first)

    def _taken(self, period: _Period, before: Tensor, first: int, last: int) -> Tensor:
        """The records of places first to last of a phase."""
        sources = period.sources[torch.arange(first, last) % len(period.sources)]
        records = torch.empty_like(sources)
        begin, end = before + period.counts(first), before + period.counts(last)
        for number, order in enumerate(self._orders):
            taken = order.take(int(begin[number]), int(end[number] - begin[number]))
            records[sources == number] = taken + self._firsts[number]
        return records


class _Period:
    """The sources of M places, and how many of each came before each place."""

    def __init__(self, parts: Sequence[int]) -> None:
        smallest = math.gcd(*parts)
        self.sources = torch.tensor(_scheduled([part // smallest for part in parts]), dtype=torch.int64)
        came_up = torch.nn.functional.one_hot(self.sources, len(parts)).cumsum(0)
        self._before = torch.cat([torch.zeros(1, len(parts), dtype=torch.int64), came_up])  # (M + 1, K)

    def counts(self, places: int) -> Tensor:
        """(K,) how often each source comes up in the first places."""
        periods, rest = divmod(places, len(self.sources))
        return periods * self._before[-1] + self._before[rest]


def _scheduled(parts: Sequence[int]) -> list[int]:
    """The source of each place of a period of sum(parts) places.

    A source is due for its next sample once it is 1/n behind, and must have it before it is 1 - 1/n behind; n is
    2K - 2, for which there is always one that is due and never one too late.
    """
    whole, mixed = sum(parts), [number for number, part in enumerate(parts) if part]
    n = max(1, 2 * len(mixed) - 2)
    given, schedule = [0] * len(parts), list[int]()

    def last_place(number: int) -> int:
        return -(-((given[number] * n + n - 1) * whole) // (n * parts[number]))

    lasts = {number: last_place(number) for number in mixed}
    for place in range(1, whole + 1):
        due = [number for number in mixed if n * (parts[number] * place - given[number] * whole) >= whole]
        chosen = min(due, key=lasts.__getitem__)
        given[chosen] += 1
        lasts[chosen] = last_place(chosen)
        schedule.append(chosen)
    return schedule


def _seed_of(name: str, seed: int) -> int:
    """A seed of a source's own: it stays when others come or go."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest())
