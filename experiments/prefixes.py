"""One forward against T forwards of prefixes: the same logits, in how much less time?

Claim: because each token reads only what is before it, one forward gives the next-token probabilities of all prefixes,
and training learns from T predictions at once. A time is processor time, the least of some, taken in turns in one
process: what else runs on the machine hardly touches it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from experiments.record import BLUE, keep, picture
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

LENGTHS_TOKENS, REPEATS, VOCABULARY = (8, 16, 32, 64, 128, 256), 10, 1000


@torch.no_grad()
def run() -> None:
    """Time both ways at each length, draw and keep the ratios."""
    spec = ModelSpec(trunk=TrunkSpec(width=128, depth=4, heads=4), context_tokens=LENGTHS_TOKENS[-1])
    model = initialize(build(spec, SampleShape(vocabulary=VOCABULARY)), seed=0)
    ratios, differences = {}, {}
    for T in LENGTHS_TOKENS:
        tokens = torch.randint(VOCABULARY, (1, T), generator=torch.Generator().manual_seed(T))

        def at_once(tokens: Tensor = tokens) -> Tensor:
            logits: Tensor = model(tokens)
            return logits

        def by_prefixes(tokens: Tensor = tokens) -> Tensor:
            return torch.stack([model(tokens[:, : t + 1])[:, -1] for t in range(tokens.shape[1])], dim=1)

        differences[T] = (at_once() - by_prefixes()).abs().max().item()
        once, prefixes = _fastest(at_once, by_prefixes)
        ratios[T] = prefixes / once
    keep("prefixes", {"times_as_long": ratios, "largest_difference_of_a_logit": max(differences.values())})
    with picture("prefixes", size=(7, 4)) as axes:
        axes.plot(LENGTHS_TOKENS, list(ratios.values()), "o-", color=BLUE, linewidth=2)
        for T, ratio in ratios.items():
            axes.annotate(f"{ratio:.0f}", (T, ratio), (0, 8), textcoords="offset points", ha="right")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(LENGTHS_TOKENS, [str(T) for T in LENGTHS_TOKENS])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(
            title="T forwards of prefixes against one of the whole row", xlabel="tokens, T", ylabel="times as long"
        )


def _fastest(*ways: Callable[[], Tensor]) -> list[float]:
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(REPEATS):
        for way, taken in zip(ways, seconds, strict=True):
            start = time.process_time()
            way()
            taken.append(time.process_time() - start)
    return [min(taken) for taken in seconds]


if __name__ == "__main__":
    run()
