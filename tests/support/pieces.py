"""Pieces of work for pools: functions that another process can import."""

from __future__ import annotations

import os

from foundation_core.errors import DataError


def squared(number: int) -> tuple[int, int]:
    """The square, and the process that found it."""
    return number**2, os.getpid()


def refused(name: str) -> None:
    """Nothing: raises."""
    raise DataError(f"found {name}", allowed="allowed", fix="fix")


def killed(number: int) -> None:
    """Nothing: its process ends by a signal."""
    os.kill(os.getpid(), number)
