"""The forecast beside what others measured on H100s: MosaicML's MPT models in bf16 at T 2048, by FSDP.

Source: github.com/mosaicml/llm-foundry at 061f2c7, scripts/train/benchmarking/README.md (rows) and scripts/train/yamls
(widths). One row fits `achievable_fraction` of infra/clusters/h100_node.yaml; the others are compared.
"""

from __future__ import annotations

from typing import NamedTuple

from cluster.projection import Training, project
from foundation_core.specs import PretrainSpec
from foundation_core.specs.cluster import ClusterSpec

VOCABULARY, CONTEXT_TOKENS = 50_368, 2048


class Shape(NamedTuple):
    """A model of theirs."""

    width: int
    heads: int
    depth: int


SHAPES = {
    "760m": Shape(1536, 12, 24),
    "1b": Shape(2048, 16, 24),
    "3b": Shape(2560, 20, 32),
    "7b": Shape(4096, 32, 32),
    "13b": Shape(5120, 40, 40),
    "30b": Shape(7168, 56, 48),
    "70b": Shape(8192, 64, 80),
}


class Measured(NamedTuple):
    """A row of their table."""

    model: str
    cards: int
    micro_batch_rows: int
    batch_rows: int
    recomputed: bool
    parameters: int
    tokens_per_second: int


FITTED = Measured("7b", 8, 6, 48, False, 6_658_859_008, 85_144)
ROWS = (
    FITTED,
    Measured("760m", 8, 24, 384, False, 760_470_528, 505_177),
    Measured("760m", 32, 24, 768, False, 760_470_528, 2_175_091),
    Measured("1b", 8, 14, 112, False, 1_315_950_592, 363_645),
    Measured("1b", 16, 20, 320, False, 1_315_950_592, 736_596),
    Measured("1b", 64, 20, 1280, False, 1_315_950_592, 2_841_754),
    Measured("3b", 16, 10, 480, False, 2_651_837_440, 386_285),
    Measured("3b", 64, 6, 1152, False, 2_651_837_440, 1_441_663),
    Measured("13b", 8, 2, 16, False, 12_853_954_560, 38_336),
    Measured("13b", 64, 2, 128, False, 12_853_954_560, 307_209),
    Measured("30b", 8, 3, 504, True, 29_975_214_080, 16_022),
    Measured("30b", 32, 14, 1344, True, 29_975_214_080, 73_860),
    Measured("70b", 64, 8, 2048, True, 64_862_437_376, 66_523),
)


def forecast_tokens_per_second(row: Measured, node: ClusterSpec) -> tuple[int, float]:
    """Parameters and tokens a second that our forecast says for a row of theirs."""
    shape = SHAPES[row.model]
    model = {"context_tokens": CONTEXT_TOKENS, "trunk": shape._asdict() | {"position": "learned"}}
    spec = PretrainSpec.model_validate(
        {"model": model, "batch_rows": row.batch_rows, "micro_batch_rows": row.micro_batch_rows, "precision": "bf16"}
    )
    cluster = node.model_copy(update={"nodes": row.cards // node.cards_per_node})
    choice = project(
        Training.of(spec, VOCABULARY), cluster, engine="deepspeed", zero_stage=3, recomputed=row.recomputed
    )
    return choice.parameters, choice.tokens_per_second


def report(node: ClusterSpec) -> float:
    """Print a line for each row; the largest error of those that were not fitted."""
    print("MPT, bf16, T 2048, H100     cards  micro-batch  recomputed    measured    forecast    error   (tokens/s)")
    errors = []
    for row in ROWS:
        _, said = forecast_tokens_per_second(row, node)
        error = said / row.tokens_per_second - 1
        fitted = row is FITTED
        errors += [] if fitted else [abs(error)]
        print(
            f"{row.model:<26}{row.cards:>7}{row.micro_batch_rows:>13}{'yes' if row.recomputed else 'no':>12}"
            f"{row.tokens_per_second:>12,}{said:>12,.0f}{error:>+9.1%}{'   fitted' if fitted else ''}"
        )
    return max(errors)
