"""Values of options that a command line takes, checked by argparse: a wrong one is answered with exit status 2."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def at_least(smallest: float, kind: Callable[[str], Number]) -> Callable[[str], Number]:
    """Reads a finite number of a kind that is not below the smallest."""

    def read(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not math.isfinite(value) or value < smallest:
            wanted = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted} from {smallest} on")
        return value

    return read
