"""How much of a GPU the plain engine uses: `python -m benchmarks.gpu`. It needs torch, pyarrow and pydantic.

A decoder of 350 M parameters learns from packed rows of 2,048 tokens in bf16, its blocks compiled, with the largest
micro-batch that fits, for a minute: tokens a second (the median step, after a warm-up), and model FLOPs utilisation,
which is the FLOPs that the model needs over the card's published bf16 peak; of a card that is not in the table, over a
timed product. Before, it says which kernel reads the packed rows, and why no better one does. The last line is JSON.

Without a GPU a tiny model runs on the CPU, uncompiled, and what comes out means nothing. The plain engine is one
process on one GPU, so `torchrun` is refused; CUDA_VISIBLE_DEVICES chooses which.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.gpu.cards import peak_of, timed_product
from benchmarks.gpu.measure import TINY, Measured, Setting, measure
from foundation_core.cost.size import training_flops
from foundation_core.errors import ConfigError, FoundationError

BAR = 0.5


def main() -> int:
    """Measure and print; 1 if a GPU's utilisation is below the bar, 2 if nothing could be measured."""
    arguments = _arguments()
    try:
        return _run(arguments)
    except FoundationError as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return error.exit_code


def _run(arguments: argparse.Namespace) -> int:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "the plain engine is one process, and torchrun started several", fix="run it without torchrun"
        )
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if has_gpu else "cpu")
    setting = Setting() if has_gpu else TINY
    name = torch.cuda.get_device_name(device) if has_gpu else "no GPU"
    size, context = setting.size, setting.context_tokens
    print(f"{name}; torch {torch.__version__}; {size.parameters / 1e6:.1f} M parameters, T {context}")
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
        compiled = has_gpu and not arguments.eager
        found = measure(setting, device, Path(folder) / "rows", compiled=compiled, seconds=arguments.seconds)
    peak = (peak_of(name) or timed_product(device)) if has_gpu else timed_product(device, 512)
    utilisation = found.flops_per_second / peak.flops_per_second
    _report(setting, found, has_gpu)
    print(
        f"peak {peak.flops_per_second / 1e12:,.4g} TFLOP/s ({peak.source}); model FLOPs utilisation {utilisation:.1%}",
        end="",
    )
    if has_gpu:
        print(f" (bar {BAR:.0%}) {'met' if utilisation >= BAR else 'MISSED'}")
    else:
        print("\nno GPU was found: this only shows that everything runs; the figures mean nothing")
    body = {"card": name, "torch": torch.__version__, "means_something": has_gpu, **asdict(setting), **asdict(found)}
    body |= {"parameters": size.parameters, "utilisation": utilisation, "peak": peak._asdict()}
    print(json.dumps(body))
    return int(has_gpu and utilisation < BAR)


def _report(setting: Setting, found: Measured, has_gpu: bool) -> None:
    for way, why in found.refused.items():
        print(f"packed rows not by {way}: {why}")
    flops = training_flops(setting.size, setting.context_tokens)
    memory = f", {found.peak_memory_bytes / 1e9:.1f} GB at the most" if has_gpu else ""
    blocks = "compiled" if found.compiled else "eager"
    print(f"packed rows by {found.way}; blocks {blocks}; {found.rows} rows a step{memory}")
    print(f"loss {found.losses[0]:.3f} to {found.losses[1]:.3f}")
    step = f"{found.step_seconds * 1e3:.1f} ms a step"
    print(f"{found.tokens_per_second:,.0f} tokens/s, {step}, {flops / 1e9:.3f} GFLOP a token")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of timed steps, after the warm-up")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
