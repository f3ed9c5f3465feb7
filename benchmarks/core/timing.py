"""Two sides timed in turns: what disturbs the machine for longer than a call disturbs both alike."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch

WARM_UP = 2
Clock = Callable[[], float]


class Comparison(NamedTuple):
    """What two sides took, in pairs.

    Args:
        ours: seconds of each call.
        theirs: seconds of the call beside it.
    """

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, of each pair."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between which the middle half of the pairs' ratios lies."""
        low, _, high = quantiles(self.ratios, n=4, method="inclusive")
        return low, high


def compare(ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int, clock: Clock) -> Comparison:
    """Both sides, call by call, after a warm-up. Who begins alternates: none always runs in the other's wake."""
    for _ in range(WARM_UP):
        ours()
        theirs()
    found = Comparison([], [])
    sides = [(ours, found.ours), (theirs, found.theirs)]
    for _ in range(pairs):
        for call, seconds in sides:
            start = clock()
            call()
            seconds.append(clock() - start)
        sides.reverse()
    return found


def clock_of(name: str) -> Clock:
    """The clock on the wall, or the processor time of this process: for a machine that others use too."""
    return {"wall": time.perf_counter, "processor": time.process_time}[name]


def machine() -> str:
    """What decides the times beside the code: processor, its wide and its bfloat16 instructions, threads, torch."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    about = dict(line.replace("\t", "").split(":", 1) for line in reversed(lines) if ":" in line)
    flags = set(about.get("flags", "").split()) & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx_vnni"}
    processor = about.get("model name", platform.machine()).strip()
    load, _, _ = os.getloadavg()
    return (
        f"{processor} ({', '.join(sorted(flags)) or 'no flags known'}), {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}; load of the machine before: {load:.1f}"
    )
