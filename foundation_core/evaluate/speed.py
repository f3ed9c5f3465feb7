"""How fast this machine multiplies: the yardstick for a model's own speed."""

from __future__ import annotations

import os
import time

import torch

CPU = torch.device("cpu")
SIZE = 2048
REPEATS = 5


def matmul_flops_per_second(
    dtype: torch.dtype, size: int = SIZE, threads: int | None = None, device: torch.device = CPU
) -> float:
    """FLOP/s of a product of two square matrices, the best of five.

    Args:
        dtype: number format of the factors.
        size: rows and columns.
        threads: that multiply, on a CPU. None: as many as this process may use.
        device: that multiplies; a card that is there is not always the one that was trained on.

    One product counts 2 size³ operations: a multiplication and an addition for each pair of factors.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    try:
        seconds = min(_product_seconds(dtype, size, device) for _ in range(REPEATS))
    finally:
        torch.set_num_threads(before)
    return 2 * size**3 / seconds


def _product_seconds(dtype: torch.dtype, size: int, device: torch.device) -> float:
    left = torch.ones(size, size, dtype=dtype, device=device)
    start = time.perf_counter()
    (left @ left)[0, 0].item()  # reading one value waits for a device that runs ahead
    return time.perf_counter() - start
