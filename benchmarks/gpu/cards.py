"""What cards can do at most: published bf16 peaks of dense products with float32 sums, by the name that torch says."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch


class Peak(NamedTuple):
    """FLOP/s that utilisation is a share of, and where the figure is from."""

    flops_per_second: float
    source: str


PEAKS = {
    "B200": Peak(2250e12, "NVIDIA Blackwell data sheet, B200, dense"),
    "H200": Peak(989.4e12, "NVIDIA H200 data sheet, SXM, dense"),
    "H100 PCIe": Peak(756e12, "NVIDIA H100 data sheet, PCIe, dense"),
    "H100 NVL": Peak(835e12, "NVIDIA H100 NVL data sheet, dense"),
    "H100": Peak(989.4e12, "NVIDIA H100 data sheet, SXM, dense"),
    "A100": Peak(312e12, "NVIDIA A100 data sheet"),
    "L40S": Peak(362e12, "NVIDIA L40S data sheet, dense"),
    "L4": Peak(121e12, "NVIDIA L4 data sheet, dense"),
    "A10": Peak(125e12, "NVIDIA A10 data sheet, dense"),
    "RTX 4090": Peak(165.2e12, "NVIDIA Ada architecture white paper, RTX 4090, dense, float32 sums"),
    "MI300X": Peak(1307.4e12, "AMD Instinct MI300X data sheet, dense"),
}
"""The first name that the card's own contains as words decides: longer names stand before their beginnings."""

PRODUCT_SIZE = 8192


def peak_of(name: str) -> Peak | None:
    """The published peak of a card; None if it is not in the table."""
    words = name.replace("-", " ").split()
    for known, peak in PEAKS.items():
        wanted = known.split()
        if any(words[at : at + len(wanted)] == wanted for at in range(len(words))):
            return peak
    return None


def timed_product(device: torch.device, size: int = PRODUCT_SIZE) -> Peak:
    """What a bf16 product of square matrices reaches here, the best of ten: for cards that are not in the table."""
    left = torch.ones(size, size, dtype=torch.bfloat16, device=device)
    best = float("inf")
    for _ in range(10):
        _wait(device)
        start = time.perf_counter()
        left @ left
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return Peak(2 * size**3 / best, f"a timed {size}-square product on this card: no published figure is known here")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
