"""Which number format the products use, decided by what this hardware does, with the reason in words."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import torch

from foundation_core.errors import ConfigError
from foundation_core.files import read_json, write_json

CPU = torch.device("cpu")
PRECISION_FILE = "precision.json"
"""In the folder of a training: the number format that its first try decided for."""
SIZES = {"cpu": 256, "cuda": 4096}
"""Rows of the product that is timed: on a GPU a small one takes as long as its start and the way back of its result."""


class Precision(NamedTuple):
    """A decided number format: bf16 or float32, and why."""

    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of the products."""
        return torch.bfloat16 if self.name == "bf16" else torch.float32


def choose_precision(asked: str, device: torch.device = CPU) -> Precision:
    """bf16 where it was asked for or multiplies faster here than float32; float32 elsewhere.

    Args:
        asked: auto, bf16 or float32.
        device: that will multiply.

    A processor without bfloat16 instructions emulates them: a product can take a hundred times as long.
    """
    if asked in ("bf16", "float32"):
        return Precision(asked, "the recipe says so")
    if asked != "auto":
        raise ConfigError(f"precision {asked!r}", allowed="auto, bf16, float32")
    size = SIZES[device.type]
    float32, bfloat16 = (_product_seconds(dtype, device, size) for dtype in (torch.float32, torch.bfloat16))
    name, share = "bf16" if bfloat16 < float32 else "float32", bfloat16 / float32
    return Precision(name, f"a {size}-square product takes {share:.2f} times as long in bf16 as in float32")


def keep_precision(folder: Path, asked: str, device: torch.device = CPU) -> Precision:
    """What `choose_precision` decides, once for all tries of a training: a second timing could decide otherwise.

    Args:
        folder: of the training. One process of it asks at a time.
    """
    path = folder / PRECISION_FILE
    if asked == "auto" and path.exists():
        return Precision(**read_json(path))
    chosen = choose_precision(asked, device)
    if asked == "auto":
        write_json(path, chosen._asdict())
    return chosen


def _product_seconds(dtype: torch.dtype, device: torch.device, size: int) -> float:
    left = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        (left @ left).sum().item()
        best = min(best, time.perf_counter() - start)
    return best
