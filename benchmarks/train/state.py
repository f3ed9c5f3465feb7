"""What a rank holds of a model in ZeRO-3: that of two ranks against that of one, by live tensors and by pages.

    one rank, two ranks x bf16, float32      parameters, gradients, optimizer state when all of them are there

The bar is of live tensor bytes. Pages of the process (PSS, the peak of a step) stand beside it: they hold activations
too, what the allocator keeps, and libraries.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.forecast.group import run_ranks
from benchmarks.forecast.ranks import Case
from benchmarks.train.rival import Shape
from foundation_core.specs import PretrainSpec

BAR_STATE, RANKS = 0.55, 2


class Held(NamedTuple):
    """Bytes of the fullest rank."""

    state: int
    pages: int


def measure(shape: Shape) -> dict[str, tuple[Held, Held]]:
    """By number format what a rank holds of one, and of two."""
    formats = ("bf16", "float32")
    found = []
    for ranks in (1, RANKS):
        cases = [Case(_spec(shape, ranks, precision).model_dump_json(), shape.vocabulary, 0) for precision in formats]
        run = run_ranks(cases, ranks)
        found.append([Held(max(r["backward"] for r in case), max(r["pss"] for r in case)) for case in run.cases])
    return dict(zip(formats, zip(*found, strict=True), strict=True))


def _spec(shape: Shape, ranks: int, precision: str) -> PretrainSpec:
    rows = shape.batch_rows // ranks
    trunk = {"width": shape.width, "depth": shape.depth, "heads": shape.heads}
    return PretrainSpec.model_validate(
        {
            "model": {"context_tokens": shape.context_tokens, "trunk": trunk}, "batch_rows": shape.batch_rows,
            "micro_batch_rows": rows, "workers": ranks, "precision": precision, "zero_stage": 3,
        }
    )  # fmt: skip


def report(found: dict[str, tuple[Held, Held]]) -> int:
    """Print both, and the bar; the number that were missed."""
    missed = 0
    for precision, (one, two) in found.items():
        ratio = two.state / one.state
        missed += ratio > BAR_STATE
        print(
            f"ZeRO 3, {precision:<8} state of a rank {one.state / 1e6:.1f} MB of one, {two.state / 1e6:.1f} MB of"
            f" {RANKS}: {ratio:.3f} (bar {BAR_STATE}) {'met' if ratio <= BAR_STATE else 'MISSED'};"
            f" pages {one.pages / 1e6:.0f} and {two.pages / 1e6:.0f} MB: {two.pages / one.pages:.2f}"
        )
    return missed
