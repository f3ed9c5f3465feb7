"""Which row is the n-th of a pretraining, as its spec says, and the hash that names all of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from foundation_core.data.loading.loader import Rows
from foundation_core.data.loading.mixture import Mixture, Phase
from foundation_core.data.loading.mixture_entries import Choice, OfSource, called
from foundation_core.data.loading.order import Order, SampleOrder
from foundation_core.data.loading.packing import Size, Windows
from foundation_core.errors import ConfigError
from foundation_core.files import sha256_json
from foundation_core.specs import PretrainSpec
from foundation_core.specs.loading import PARTS, MixtureSpec, parts_of
from foundation_core.stages.training_data import TrainingData

_HASHED_SAMPLES = 1_000_000
"""Samples whose numbers are hashed: more would take longer, and what decides all numbers is hashed beside them."""


def chosen_by(mixture: MixtureSpec) -> list[Choice]:
    """The groups and sources of a mixture, in their order."""
    return [OfSource(str(mixed.source)) if mixed.group is None else mixed.group for mixed in mixture.groups]


def order_of(spec: PretrainSpec, rows: Rows) -> SampleOrder:
    """The order of a training's rows.

    Raises:
        ConfigError: a group or source is not there, is given no share, would be read more often than the spec
            allows, or shares documents with another.
    """
    if not spec.mixture.groups:
        return Order(len(rows), spec.seed)
    assert isinstance(rows, Windows), "only texts have groups of rows"
    sizes = {choice: size for choice, size in rows.sizes().items() if choice is not None}
    starts = {0: tuple(mixed.weight for mixed in spec.mixture.groups)}
    starts |= {change.from_step: change.weights for change in spec.mixture.changes}
    phases = [Phase(step * spec.batch_rows, _parts(spec.mixture, weights, sizes)) for step, weights in starts.items()]
    order = Mixture({str(choice): size.rows for choice, size in sizes.items()}, phases, spec.seed)
    _check_epochs(spec, order, sizes)
    return order


def order_hash(spec: PretrainSpec, order: SampleOrder, corpus: TrainingData, found: Collection[str] = ()) -> str:
    """Hex sha256 of what is read and when: the corpus, how rows are made of it, and which row is the n-th.

    What decides the order is in it, such as weights that begin with a late step, and the numbers that come of it for
    the first million samples, so that another way of finding them is seen.

    No number of ranks or of rows of a pass is in it.

    Args:
        found: documents that are hidden in the rows, beside those that the spec names.
    """
    samples = spec.steps * spec.batch_rows
    groups = [[mixed.group, mixed.source] for mixed in spec.mixture.groups]
    rows = [corpus.content, len(corpus.train), spec.model.context_tokens, spec.packing, groups]
    rows += [sorted(hidden)] if (hidden := {*spec.quarantined, *found}) else []
    return sha256_json([*rows, samples, order.facts(), order.digest(min(samples, _HASHED_SAMPLES))])


def _parts(mixture: MixtureSpec, weights: tuple[float, ...], sizes: Mapping[Choice, Size]) -> tuple[int, ...]:
    """Rows of each group or source in `PARTS` rows."""
    rows_per_unit = {
        "tokens": [size.rows / size.tokens for size in sizes.values()],
        "documents": [size.rows / size.documents for size in sizes.values()],
        "epochs": [float(size.rows) for size in sizes.values()],
    }[mixture.by]
    parts = parts_of(tuple(weight * rows for weight, rows in zip(weights, rows_per_unit, strict=True)))
    for choice, part in zip(sizes, parts, strict=True):
        if not part:
            raise ConfigError(
                f"pretrain.mixture gives the {called(choice)} less than one row in {PARTS:,}",
                fix="give it a larger weight, or leave it out",
            )
    return parts


def _check_epochs(spec: PretrainSpec, order: Mixture, sizes: Mapping[Choice, Size]) -> None:
    read = order.counts(spec.steps * spec.batch_rows).tolist()
    for rows, (choice, size) in zip(read, sizes.items(), strict=True):
        if rows > spec.mixture.max_epochs * size.rows:
            raise ConfigError(
                f"pretrain.mixture reads the {called(choice)} {rows / size.rows:.2f} times: {rows:,} rows in"
                f" {spec.steps:,} steps, and it has {size.rows:,}",
                allowed=f"at most {spec.mixture.max_epochs:g} times (pretrain.mixture.max_epochs)",
                fix="lower its weight or pretrain.steps, add documents, or allow more",
            )
