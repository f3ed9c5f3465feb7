"""One rank of the timed loader, in a process of its own."""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier as BarrierType
from pathlib import Path
from typing import Any

import torch

from foundation_core.data.loading.loader import Loader
from foundation_core.data.loading.mixture import Mixture, Phase
from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.specs.loading import Packing

RANKS = 2
WAYS = {"compiled": True, "torch": False}
STEPS = ("take", "_compiled", "_by_torch", "pieces", "_tokens", "segments", "positions")
_TURN_STEPS = 5


@dataclass
class Measured:
    """What one rank took in one way.

    Args:
        first_seconds: of the first step, in which machine code is loaded and rows are planned.
        shares: of the time in each of `STEPS`, under a profiler.
    """

    tokens: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    first_seconds: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)


def run_rank(
    rank: int, barrier: BarrierType, results: Any, folder: Path, packing: Packing, arguments: argparse.Namespace
) -> None:
    """Put what was measured in each of `WAYS` into the results."""
    torch.set_num_threads(1)
    dataset = ShardDataset(folder)
    dataset.verify()
    loaders = {way: _loader(dataset, rank, packing, compiled, arguments) for way, compiled in WAYS.items()}
    measured = {way: Measured() for way in loaders}
    for way, loader in loaders.items():
        begin = time.perf_counter()
        loader.micro_batches(0)
        measured[way].first_seconds = time.perf_counter() - begin
        for step in range(1, 3):
            loader.micro_batches(step)
    for first in range(3, 3 + arguments.steps, _TURN_STEPS):
        for way, loader in loaders.items():
            barrier.wait()
            _time(loader, range(first, first + _TURN_STEPS), measured[way], arguments)
    for way, loader in loaders.items():
        measured[way].shares = _shares(loader, arguments.steps)
    results.put(measured)


def _loader(
    dataset: ShardDataset, rank: int, packing: Packing, compiled: bool, arguments: argparse.Namespace
) -> Loader:
    windows = Windows(dataset, arguments.context_tokens, packing, ["prose", "code"], compiled)
    sizes = {str(group): size.rows for group, size in windows.sizes().items()}
    order = Mixture(sizes, [Phase(0, (7, 3))], seed=0)
    return Loader(windows, order, arguments.batch_rows, arguments.batch_rows // RANKS, rank, RANKS)


def _time(loader: Loader, steps: range, measured: Measured, arguments: argparse.Namespace) -> None:
    begin, processor = time.perf_counter(), time.thread_time()
    for step in steps:
        loader.micro_batches(step)
    measured.seconds += time.perf_counter() - begin
    measured.processor_seconds += time.thread_time() - processor
    measured.tokens += len(steps) * arguments.batch_rows // RANKS * arguments.context_tokens


def _shares(loader: Loader, steps: int) -> dict[str, float]:
    """The share of the time in each of `STEPS`, under a profiler; of functions with one name, that of the outermost."""
    profile = cProfile.Profile()
    profile.enable()
    for step in range(steps):
        loader.micro_batches(step)
    profile.disable()
    seconds = dict[str, float]()
    for (_, _, name), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        seconds[name] = max(seconds.get(name, 0.0), cumulative)
    return {name: seconds[name] / seconds["micro_batches"] for name in STEPS if name in seconds}
