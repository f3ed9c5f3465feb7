"""The core beside others, same shapes and same weights: `python -m benchmarks.core [train|generate]`.

Prints a line for each family beside the model of `transformers` or `torch.nn` that has its layers, and for cached
generation, and where the time goes if a bar is missed; ends with 1 if one is, or a comparison is void. On a machine
that others use, `--clock processor` counts this process's own time; `--tiny` only shows that everything runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import torch
import transformers

from benchmarks.core import generate, train
from benchmarks.core.grids import grid_pairs
from benchmarks.core.text import text_pairs
from benchmarks.core.timing import clock_of, machine
from cluster.settings import usable_cpus


def main() -> int:
    """Measure and print; 1 if a bar is missed."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    print(f"machine: {machine()}; transformers {transformers.__version__}; clock: {arguments.clock}")
    lines = {"train": _train, "generate": _generate}
    met = [one for name in lines if arguments.what in (name, "all") for one in lines[name](arguments)]
    return int(not arguments.tiny and not all(met))


def _train(arguments: argparse.Namespace) -> Iterator[bool]:
    size = train.TINY if arguments.tiny else train.Size()
    print(train.HEADER)
    for name, make in (text_pairs(size) | grid_pairs(size)).items():
        if arguments.only in name:
            torch.manual_seed(0)
            row = train.measure(make(), arguments.pairs, clock_of(arguments.clock))
            print(row.line(), flush=True)
            yield row.met


def _generate(arguments: argparse.Namespace) -> Iterator[bool]:
    case = generate.TINY if arguments.tiny else generate.Case(new=arguments.new)
    print(generate.HEADER)
    for name in generate.sides(case):
        for dtype in (torch.float32, torch.bfloat16):
            for rows in (1, 8):
                if arguments.only in name:
                    torch.manual_seed(0)
                    row = generate.measure(name, case, dtype, rows, arguments.pairs, clock_of(arguments.clock))
                    print(row.line(), flush=True)
                    if not row.met:
                        print(generate.profile(name, case, dtype, rows, clock_of(arguments.clock)).line(), flush=True)
                    yield row.met


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", "train", "generate"), default="all")
    parser.add_argument("--only", default="", metavar="TEXT", help="lines whose name holds this text")
    parser.add_argument("--pairs", type=int, default=9, help="calls of each side that are timed")
    parser.add_argument("--new", type=int, default=generate.Case().new, help="tokens that are written")
    parser.add_argument("--threads", type=int, default=usable_cpus(), help="threads of torch")
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that it runs; no bars")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
