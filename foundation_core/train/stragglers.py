"""Names a rank that is slower than the others, by what each did before it waited for them.

    rank's own seconds of each step -> median of a window -> over the median of the other ranks', three times -> named

Wall time of a step says nothing: all ranks wait for the slowest. A rank's own seconds are those of making its batch and
of its forward passes, which come before the first exchange of gradients. At ZeRO 3 a forward waits for the others too,
and only what its batches cost tells ranks apart.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, cast

from torch import device
from torch.cuda import Event, current_stream

LOOKS = 3
"""In a row, that must agree."""
Part = TypeVar("Part")


class Verdict(NamedTuple):
    """A rank that became slow, or is no longer.

    Args:
        factor: its median over that of the others.
        slow: whether it is slow from now on.
    """

    rank: int
    factor: float
    slow: bool


class Stragglers:
    """Judges the ranks by their own seconds, at looks that lie apart.

    A look compares the medians of the last steps. A rank is named when it was `factor` times as slow as the others in
    `LOOKS` looks in a row, and is well again when it was below the middle between that and 1 in as many: one that
    stands at the bound is not named again and again.

    Args:
        window_steps: of a look.
        apart_seconds: between two looks, at the least.
    """

    def __init__(self, factor: float, window_steps: int, apart_seconds: float) -> None:
        self._factor, self._well = factor, (1 + factor) / 2
        self._window, self._apart_seconds = window_steps, apart_seconds
        self._seconds: dict[int, deque[float]] = {}
        self._streak: Counter[int] = Counter()
        self._slow: set[int] = set()
        self._looked_at = float("-inf")

    def saw(self, seconds: Mapping[int, float], at: float) -> list[Verdict]:
        """Take in what each rank took for its own work of one step; the ranks of which something new is to be said.

        Args:
            at: now, in seconds of any clock that is not put back.
        """
        for rank, taken in seconds.items():
            self._seconds.setdefault(rank, deque(maxlen=self._window)).append(taken)
        full = all(len(self._seconds[rank]) == self._window for rank in seconds)
        if len(seconds) < 2 or not full or at - self._looked_at < self._apart_seconds:
            return []
        self._looked_at = at
        medians = {rank: statistics.median(self._seconds[rank]) for rank in seconds}
        found = (self._judge(rank, medians) for rank in medians)
        return [verdict for verdict in found if verdict is not None]

    def _judge(self, rank: int, medians: Mapping[int, float]) -> Verdict | None:
        others = statistics.median(median for other, median in medians.items() if other != rank)
        factor, was_slow = (medians[rank] / others if others else 1.0), rank in self._slow
        changed = factor < self._well if was_slow else factor >= self._factor
        self._streak[rank] = self._streak[rank] + 1 if changed else 0
        if self._streak[rank] < LOOKS:
            return None
        self._streak[rank] = 0
        self._slow ^= {rank}
        return Verdict(rank, factor, slow=not was_slow)


class OwnWork:
    """A rank's stopwatch for what it does alone; on a GPU by events of its stream: calls return before the work."""

    def __init__(self, on: device) -> None:
        self._on = on
        self._seconds = 0.0
        self._events: list[tuple[Event, Event]] = []

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count the seconds of the block."""
        if self._on.type == "cuda":
            begin, end = _event(), _event()
            begin.record(current_stream(self._on))
            yield
            end.record(current_stream(self._on))
            self._events.append((begin, end))
        else:
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start

    def counted(self, part: Part, method: str) -> Part:
        """The part, with the seconds of one of its methods counted."""
        return cast(Part, _Counted(part, method, self))

    def taken_seconds(self) -> float:
        """The seconds since the last call; called where the step has waited for the device anyway."""
        seconds, self._seconds = self._seconds, 0.0
        for begin, end in self._events:
            end.synchronize()
            seconds += begin.elapsed_time(end) / 1e3
        self._events.clear()
        return seconds


class _Counted:
    """Stands for a part, and measures one of its methods."""

    def __init__(self, part: Any, method: str, own: OwnWork) -> None:
        self._part, self._method, self._own = part, method, own

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        return self._own.measured()(found) if name == self._method else found


def _event() -> Event:
    return Event(enable_timing=True)  # type: ignore[no-untyped-call]
