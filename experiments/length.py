"""Reading further than in training: the loss at 1, 2, 4 and 8 times the trained length, for each kind of position.

    python -m experiments.length [FILE]

The text is Python's standard library, byte by byte, or the file that is named. The labels are the same at every length:
the last `TRAINED_TOKENS` bytes of each row. What grows is the text before them, so a model that can use it gets better,
and one that cannot make sense of places it never saw gets worse. A table of positions has rows for all lengths; those
that training never reached stay as they were drawn.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.record import COLORS, GREY, keep, picture
from experiments.training import SumAndCount, learn
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.transformer import Model
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, OptimizerSpec, TrunkSpec

POSITIONS = get_args(TrunkSpec.model_fields["position"].annotation)
TRAINED_TOKENS, MULTIPLES = 64, (1, 2, 4, 8)
BATCH, STEPS, TEST_ROWS = 16, 300, 64
TEXT_BYTES = 2_000_000
SEEDS = (0, 1, 2)
OPTIMIZER = OptimizerSpec(lr=3e-3, weight_decay=0.01)


def text_of(path: Path | None) -> tuple[Tensor, Tensor]:
    """Bytes to train on and bytes to test on, the last tenth; of a file, or of Python's own modules."""
    if path is None:
        modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
        whole = b"\n".join(module.read_bytes() for module in modules)[:TEXT_BYTES]
    else:
        whole = path.read_bytes()[:TEXT_BYTES]
    tokens = torch.frombuffer(bytearray(whole), dtype=torch.uint8).long()
    return tokens[: len(tokens) * 9 // 10], tokens[len(tokens) * 9 // 10 :]


def trained(position: str, seed: int, text: Tensor) -> Model:
    """A decoder of bytes that has read rows of `TRAINED_TOKENS`."""
    trunk = TrunkSpec(width=96, depth=3, heads=4, position=position, norm="layer")
    spec = ModelSpec(trunk=trunk, context_tokens=TRAINED_TOKENS * MULTIPLES[-1])
    model = initialize(build(spec, SampleShape(vocabulary=256)), seed)
    assert isinstance(model, Model)
    draw = torch.Generator().manual_seed(seed)

    def loss(step: int) -> SumAndCount:
        starts = torch.randint(len(text) - TRAINED_TOKENS, (BATCH,), generator=draw)
        rows = text[starts[:, None] + torch.arange(TRAINED_TOKENS + 1)]
        logits = model(rows[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum"), logits[..., 0].numel()

    learn(model, loss, STEPS, OPTIMIZER)
    return model


@torch.no_grad()
def nats_at(model: Model, text: Tensor, multiple: int) -> float:
    """Nats per byte of the last bytes of each row, with so many times the trained length to read."""
    longest = TRAINED_TOKENS * MULTIPLES[-1]
    starts = torch.linspace(0, len(text) - longest - 1, TEST_ROWS).long()
    rows = text[starts[:, None] + torch.arange(longest + 1)][:, -TRAINED_TOKENS * multiple - 1 :]
    total = 0.0
    for part in rows.split(16):
        logits = model(part[:, :-1])[:, -TRAINED_TOKENS:]
        total += F.cross_entropy(logits.flatten(0, 1), part[:, -TRAINED_TOKENS:].flatten(), reduction="sum").item()
    return total / (TEST_ROWS * TRAINED_TOKENS)


def run(path: Path | None = None) -> None:
    """Train a model for each kind of position and seed, draw and keep the losses by length."""
    train, test = text_of(path)
    found: dict[str, dict[str, list[float]]] = {}
    for position in POSITIONS:
        models = [trained(position, seed, train) for seed in SEEDS]
        found[position] = {str(n): [nats_at(model, test, n) for model in models] for n in MULTIPLES}
    figures: dict[str, Any] = {
        position: {
            multiple: {"mean": sum(nats) / len(nats), "lowest": min(nats), "highest": max(nats)}
            for multiple, nats in by_length.items()
        }
        for position, by_length in found.items()
    }
    text = "Python's standard library" if path is None else path.name
    keep("length", {"text": text, "trained_tokens": TRAINED_TOKENS, "seeds": len(SEEDS), "nats_per_byte": figures})
    draw(figures)


def draw(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """The picture of the losses by kind of position and multiple of the trained length."""
    with picture("length", size=(8, 4.6)) as axes:
        for (position, by_length), color in zip(figures.items(), COLORS, strict=True):
            means, low, high = ([part[key] for part in by_length.values()] for key in ("mean", "lowest", "highest"))
            axes.plot(MULTIPLES, means, "o-", color=color, linewidth=2, label=position)
            axes.fill_between(MULTIPLES, low, high, color=color, alpha=0.15, linewidth=0)
        axes.axvline(1, color=GREY, linestyle="--", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_xticks(MULTIPLES, [f"{n} x" for n in MULTIPLES])
        axes.set(
            title="Loss on the same bytes, with more and more text before them",
            xlabel=f"length read, in multiples of the {TRAINED_TOKENS} bytes of training",
            ylabel="nats per byte (band: 3 seeds)",
        )
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


if __name__ == "__main__":
    run(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
