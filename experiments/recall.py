"""Long-range recall: does attention find a value as surely far away as near?

    filler  a=7  filler  c=2  a?  filler  b=4  ...  c?

A row says each of a few keys' values once, amid filler, and asks for them later: the answer to a question stands as
many tokens back as chance puts it. The control is the same model behind a window: a token reads itself and what is
less than `WINDOW` tokens behind it. Two blocks can hand a value on once, so two windows are the most they can reach.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.record import COLORS, GREY, keep, picture
from experiments.training import SumAndCount, learn
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.transformer import Model
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, OptimizerSpec, TrunkSpec

FILLER, KEYS, VALUES = 8, 8, 8
VOCABULARY = FILLER + KEYS + KEYS * VALUES
T, QUESTIONS, WINDOW, BATCH, STEPS = 128, 48, 32, 32, 300
BIN_TOKENS = 16
TEST_ROWS = 1024
SEEDS = (0, 1, 2)
TRUNK = TrunkSpec(width=64, depth=2, heads=4, position="rotary", norm="layer")
OPTIMIZER = OptimizerSpec(lr=3e-3, weight_decay=0.01)


class Window(nn.Module):
    """Hides what is `tokens` or more behind: a part that adds to the scores, as ALiBi is."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, query_BT: Tensor, key_BS: Tensor) -> Tensor:
        """(B, 1, T, S): 0 or minus infinity."""
        behind = query_BT[:, :, None] - key_BS[:, None, :]
        return torch.zeros(behind.shape).masked_fill(behind >= self.tokens, float("-inf"))[:, None]


def rows(count: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, the value that each place asks for, and how far back it stands, 0 for no question; each (B, T)."""
    place_BT = torch.rand(count, T, generator=draw).argsort(dim=1)
    said_BK, asked_BQ = place_BT[:, :KEYS], place_BT[:, KEYS : KEYS + QUESTIONS]
    value_BK = torch.randint(VALUES, (count, KEYS), generator=draw)
    key_BQ = torch.randint(KEYS, (count, QUESTIONS), generator=draw)
    tokens_BT = torch.randint(FILLER, (count, T), generator=draw)
    tokens_BT.scatter_(1, asked_BQ, FILLER + key_BQ)
    tokens_BT.scatter_(1, said_BK, FILLER + KEYS + torch.arange(KEYS) * VALUES + value_BK)
    distance_BQ = (asked_BQ - said_BK.gather(1, key_BQ)).clamp(min=0)
    nothing_BT = torch.zeros_like(tokens_BT)
    answer_BT = nothing_BT.scatter(1, asked_BQ, value_BK.gather(1, key_BQ))
    return tokens_BT, answer_BT, nothing_BT.scatter(1, asked_BQ, distance_BQ)


def trained(window: bool, seed: int) -> Model:
    """A decoder that learned to recall, with the whole row before it or with a window."""
    spec = ModelSpec(trunk=TRUNK, context_tokens=T)
    model = initialize(build(spec, SampleShape(vocabulary=VOCABULARY)), seed)
    assert isinstance(model, Model)
    model.trunk.score_bias = Window(WINDOW) if window else None
    draw = torch.Generator().manual_seed(seed)

    def loss(step: int) -> SumAndCount:
        tokens_BT, answer_BT, distance_BT = rows(BATCH, draw)
        asked_BT = distance_BT > 0
        logits = model(tokens_BT)[asked_BT]
        return F.cross_entropy(logits, answer_BT[asked_BT], reduction="sum"), int(asked_BT.sum())

    learn(model, loss, STEPS, OPTIMIZER)
    return model


@torch.no_grad()
def accuracy_by_distance(model: Model) -> dict[str, float]:
    """The share of values that are recalled, by the distance they are recalled over."""
    tokens_BT, answer_BT, distance_BT = rows(TEST_ROWS, torch.Generator().manual_seed(1_000_000))
    right_BT = torch.cat([model(part).argmax(dim=-1) for part in tokens_BT.split(64)]) == answer_BT
    found = {}
    for first in range(0, T, BIN_TOKENS):
        asked_BT = (distance_BT > first) & (distance_BT <= first + BIN_TOKENS)
        found[f"{first + 1}-{first + BIN_TOKENS}"] = right_BT[asked_BT].float().mean().item()
    return found


def run() -> None:
    """Train with and without the window, draw and keep recall by distance."""
    arms = {"the whole row": False, f"a window of {WINDOW}": True}
    found = {name: [accuracy_by_distance(trained(window, seed)) for seed in SEEDS] for name, window in arms.items()}
    figures: dict[str, Any] = {
        name: {
            distance: {
                "mean": sum(run[distance] for run in runs) / len(runs),
                "lowest": min(run[distance] for run in runs),
                "highest": max(run[distance] for run in runs),
            }
            for distance in runs[0]
        }
        for name, runs in found.items()
    }
    keep("recall", {"chance": 1 / VALUES, "window_tokens": WINDOW, "blocks": TRUNK.depth, "accuracy": figures})
    with picture("recall", size=(8, 4)) as axes:
        for (name, by_distance), color in zip(figures.items(), COLORS, strict=False):
            middle = [float(distance.split("-")[1]) - BIN_TOKENS / 2 for distance in by_distance]
            means, low, high = (
                [100 * part[key] for part in by_distance.values()] for key in ("mean", "lowest", "highest")
            )
            axes.plot(middle, means, "o-", color=color, linewidth=2, label=name)
            axes.fill_between(middle, low, high, color=color, alpha=0.2, linewidth=0)
        axes.axhline(100 / VALUES, color=GREY, linestyle=":", label="chance")
        reach = TRUNK.depth * (WINDOW - 1)
        axes.axvline(reach, color=GREY, linestyle="--", linewidth=1)
        axes.annotate(
            f"reach of {TRUNK.depth} blocks\nbehind the window",
            (reach, 50),
            (6, 0),
            textcoords="offset points",
            color=GREY,
        )
        axes.set(
            title="Values recalled, by distance", xlabel="tokens back to the value", ylabel="% right (band: 3 seeds)"
        )
        axes.set_ylim(0, 104)
        axes.legend(loc="center right")


if __name__ == "__main__":
    run()
