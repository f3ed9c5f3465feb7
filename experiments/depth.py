"""Norms by depth: how large the stream and its gradient are in each block, for three places of a norm and none.

Claim: normalisation keeps signals and gradients in bounds in deep models. Two starts are measured: the library's, whose
matrices begin small, and those that write into the stream the smaller the deeper the model is; and the textbooks', in
which every matrix keeps the size of what passes it. Then each model learns for a while from either start.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.length import text_of
from experiments.record import COLORS, keep, picture
from experiments.training import SumAndCount, learn
from foundation_core.errors import DivergedError
from foundation_core.model.block import Residual
from foundation_core.model.families import build
from foundation_core.model.initialize import WRITER, fresh_std, initialize
from foundation_core.model.transformer import Model
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, OptimizerSpec, TrunkSpec

DEPTH, T, BATCH, STEPS = 24, 64, 8, 120
PLACES = ("pre", "post", "branch", "none")
STARTS = {"the library's start": False, "variance 1 / inputs": True}
OPTIMIZER = OptimizerSpec(lr=1e-3, warmup_fraction=0.1)


class NoNorm(Residual):
    """The stream with the branch added, and no norm."""

    def forward(self, x_BTD: Tensor, *where: Any) -> Tensor:
        """(B, T, D)."""
        return x_BTD + self.branch(x_BTD, *where)


def fresh(place: str, unit: bool, seed: int = 0) -> Model:
    """A deep decoder of bytes with its norms in a place, or without any in its blocks.

    Args:
        unit: whether every matrix of the blocks keeps the size of what passes it, with a variance of 1 / inputs.
    """
    spec = TrunkSpec(width=64, depth=DEPTH, heads=4, residual="pre" if place == "none" else place, norm="layer")
    model = build(ModelSpec(trunk=spec, context_tokens=T), SampleShape(vocabulary=256))
    assert isinstance(model, Model)
    initialize(model, seed)
    if unit:
        with torch.no_grad():
            for name, weight in model.trunk.blocks.named_parameters():
                if weight.dim() == 2:
                    weight /= fresh_std(weight.shape[1]) * sqrt(weight.shape[1])
                if name.endswith(WRITER):
                    weight *= sqrt(2 * DEPTH)
    if place == "none":
        for block in model.trunk.blocks:
            block.mix, block.feed = (NoNorm(torch.nn.Identity(), part.branch) for part in (block.mix, block.feed))
    return model


def norms(model: Model, rows: Tensor) -> dict[str, list[float]]:
    """For each block, what leaves it: its features' root mean square, and the norm of the loss's gradient there."""
    streams: list[Tensor] = []

    def seen(block: torch.nn.Module, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        streams.append(output)

    hooks = [block.register_forward_hook(seen) for block in model.trunk.blocks]
    F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()).backward()
    for hook in hooks:
        hook.remove()
    gradients = [stream.grad for stream in streams]
    return {
        "stream": [stream.detach().square().mean().sqrt().item() for stream in streams],
        "gradient": [gradient.norm().item() for gradient in gradients if gradient is not None],
    }


def run() -> None:
    """Measure, train, draw and keep."""
    text, _ = text_of(None)
    draw = torch.Generator().manual_seed(0)
    rows = text[torch.randint(len(text) - T, (BATCH, 1), generator=draw) + torch.arange(T + 1)]
    found = {start: {place: norms(fresh(place, unit), rows) for place in PLACES} for start, unit in STARTS.items()}
    summary = {
        start: {
            place: {
                "stream_growth": by["stream"][-1] / by["stream"][0],
                "gradient_first_over_last": by["gradient"][0] / by["gradient"][-1],
            }
            for place, by in places.items()
        }
        for start, places in found.items()
    }
    losses = {start: {place: _after_training(place, unit, text) for place in PLACES} for start, unit in STARTS.items()}
    keep("depth", {"blocks": DEPTH, "norms": summary, "steps": STEPS, "nats_per_byte_after_training": losses})
    with picture("depth", rows=2, columns=2, size=(10, 7)) as grid:
        for column, (start, places) in enumerate(found.items()):
            for row, quantity in enumerate(("stream", "gradient")):
                axes = grid[row][column]
                for (place, by), color in zip(places.items(), COLORS, strict=False):
                    axes.plot(range(1, DEPTH + 1), by[quantity], color=color, linewidth=2, label=place)
                axes.set_yscale("log")
                axes.set(title=f"{quantity}: {start}", xlabel="block")
        grid[0][0].set_ylabel("root mean square of the stream")
        grid[1][0].set_ylabel("norm of the gradient")
        grid[0][0].legend(title="norm")


def _after_training(place: str, unit: bool, text: Tensor) -> float | None:
    """Nats per byte in the mean of the last 20 steps; None where the loss or its gradient was no number any more."""
    model, draw = fresh(place, unit), torch.Generator().manual_seed(0)

    def loss(step: int) -> SumAndCount:
        rows = text[torch.randint(len(text) - T, (BATCH, 1), generator=draw) + torch.arange(T + 1)]
        logits = model(rows[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum"), BATCH * T

    try:
        return sum(learn(model, loss, STEPS, OPTIMIZER)[-20:]) / 20
    except DivergedError:
        return None


if __name__ == "__main__":
    run()
