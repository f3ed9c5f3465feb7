"""One rank of the timed loader, in a process of its own."""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from multiprocessing.synchronize import Barrier as BarrierType
from pathlib import Path
from typing import Any

import torch

from foundation_core.data.loader import Loader
from foundation_core.data.mixture import Mixture, Phase
from foundation_core.data.packing import Windows
from foundation_core.data.shards import ShardDataset
from foundation_core.spec_loading import Packing

RANKS = 2
STEPS = ("take", "pieces", "_padded", "_in_order", "_tokens", "segments", "positions")


def run_rank(
    rank: int, barrier: BarrierType, results: Any, folder: Path, packing: Packing, arguments: argparse.Namespace
) -> None:
    """Put the tokens, the seconds and the share of each step into the results."""
    torch.set_num_threads(1)
    windows = Windows(ShardDataset(folder), arguments.context_tokens, packing, ["prose", "code"])
    sizes = {str(group): size.rows for group, size in windows.sizes().items()}
    order = Mixture(sizes, [Phase(0, (7, 3))], seed=0)
    loader = Loader(windows, order, arguments.batch_rows, arguments.batch_rows // RANKS, rank, RANKS)
    windows.dataset.verify()
    for step in range(3):
        loader.micro_batches(step)
    barrier.wait()
    begin = time.perf_counter()
    for step in range(3, 3 + arguments.steps):
        loader.micro_batches(step)
    seconds = time.perf_counter() - begin
    barrier.wait()
    tokens = arguments.steps * arguments.batch_rows // RANKS * arguments.context_tokens
    results.put((tokens, seconds, _shares(loader, arguments.steps)))


def _shares(loader: Loader, steps: int) -> dict[str, float]:
    """The share of the time in each of `STEPS`, under a profiler."""
    profile = cProfile.Profile()
    profile.enable()
    for step in range(steps):
        loader.micro_batches(step)
    profile.disable()
    rows = pstats.Stats(profile).get_stats_profile().func_profiles
    return {name: rows[name].cumtime / rows["micro_batches"].cumtime for name in STEPS if name in rows}
