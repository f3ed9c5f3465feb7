"""Training measured: `python -m benchmarks.train WHAT [...]`; prints each figure and its bar.

speed     the whole product path beside a plain torch rival and beside the bare step
stalls    what a save each five steps costs, beside none and beside one that training waits for
state     what a rank holds in ZeRO-3, of two ranks against one
quality   nats a character of Tiny Shakespeare's last tenth after 110 s of training
ablation  the same after as many steps, with one choice of the recipe undone at a time

All want the machine for themselves. The bars of `speed` and `stalls` are for bf16, which a machine without AVX-512 BF16
or AMX only emulates: there `--precision float32` says what the paths around a step cost.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.core.timing import machine
from benchmarks.train import ablation, quality, speed, stalls, state
from benchmarks.train.rival import Shape

TEXT = Path("../shared/data/tinyshakespeare.txt")


def main() -> int:
    """Measure and print; the number of bars that were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("what", choices=("speed", "stalls", "state", "quality", "ablation"))
    parser.add_argument("--pairs", type=int, default=5, help="rounds of `speed` and `stalls`")
    parser.add_argument(
        "--steps",
        type=int,
        default=Shape().steps,
        help="of a round of `speed`, after warm-up, and of a block of `stalls`",
    )
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16", help="of `speed` and `stalls`")
    parser.add_argument("--seeds", type=int, default=3, help="of `quality`")
    parser.add_argument("--ablation-steps", type=int, default=375, help="of each training of `ablation`")
    parser.add_argument("--choice", action="append", choices=list(ablation.CHOICES), help="of `ablation`; default: all")
    parser.add_argument("--text", type=Path, default=TEXT, help="Tiny Shakespeare, as it is published")
    given = parser.parse_args()
    print(f"machine: {machine()}")
    if given.what == "speed":
        shape = Shape(steps=given.steps, precision=given.precision)
        return speed.report(speed.measure(given.pairs, shape), shape)
    if given.what == "stalls":
        return stalls.report(stalls.measure(given.pairs, Shape(steps=given.steps, precision=given.precision)))
    if given.what == "state":
        return state.report(state.measure(Shape()))
    if given.what == "ablation":
        names = ["the recipe", *(given.choice or list(ablation.CHOICES)[1:])]
        return ablation.report(ablation.measure(given.text, given.ablation_steps, names))
    counted = quality.witten_bell(given.text)
    return quality.report(quality.measure(given.text, given.seeds), counted)


if __name__ == "__main__":
    sys.exit(main())
