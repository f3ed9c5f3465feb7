"""How rows are made of a corpus and in what proportions they are read: part of the pretraining's spec."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from foundation_core.specs.base import Spec, placement

Packing = Literal["cut", "best_fit", "one_document"]

PARTS = 10_000
"""Parts of a mixture's whole: weights are multiples of one, so that a period of so many samples holds them exactly."""


class ShardStoreSpec(Spec):
    """Shards in a store, kept in a folder of this machine while they are used. Off without an address."""

    address: str | None = placement(None)
    """A copy of the ingest result's folder, such as s3://bucket/corpus: pretraining reads its shards, not those in
    the data folder. Manifests, and so the hashes that are compared, are those in the data folder."""
    cache_folder: str | None = placement(None)
    """Where shards are kept, for all workers of a machine. Empty: cache/shards in the data folder; name a folder of a
    local disk where the data folder is shared over a network."""
    cache_bytes: int = placement(100_000_000_000, ge=1)
    """The most that is kept there. It must hold the corpus, as every batch reads everywhere in it; shards of other
    corpora leave first, the longest unused one before the others."""


class MixedGroupSpec(Spec):
    """One group of the corpus, or one of its sources, and its weight."""

    group: str | None = None
    """Group of the documents, as the ingest result has it; of whatever source."""
    source: str | None = None
    """Source of the documents, in place of a group: a name in ingest.source.parts, with which their ids begin."""
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Share among the weights, in what `by` says."""

    @model_validator(mode="after")
    def _names_a_group_or_a_source(self) -> Self:
        if (self.group is None) == (self.source is None):
            found = "neither" if self.group is None else f"group {self.group!r} and source {self.source!r}"
            raise ValueError(f"an entry of a mixture needs a group or a source, one of both; found {found}")
        return self


class WeightChangeSpec(Spec):
    """Other weights from a step on."""

    from_step: int = Field(ge=1)
    """First optimizer step that has these weights, counted from 0."""
    weights: tuple[PositiveFloat, ...]
    """One for each group, in their order."""


class MixtureSpec(Spec):
    """Groups or sources of the corpus in given proportions, in place of all documents as they are. Off without."""

    groups: tuple[MixedGroupSpec, ...] = ()
    """Groups or sources that are read; others are not. Empty: every document, whatever its group."""
    by: Literal["tokens", "documents", "epochs"] = "tokens"
    """What weights are proportions of: of the tokens that are read, of the documents, or of how often a group is."""
    changes: tuple[WeightChangeSpec, ...] = ()
    """Other weights later in the training."""
    max_epochs: float = Field(4.0, gt=0)
    """How often a group is read at the most; a training that needs more is refused with the figures.
    Source: Muennighoff et al. 2023, Scaling data-constrained language models: up to four epochs are nearly as good as
    new data."""

    @model_validator(mode="after")
    def _says_each_group_once_and_steps_in_order(self) -> Self:
        names = [f"{mixed.source}/" if mixed.group is None else mixed.group for mixed in self.groups]
        if len(set(names)) < len(names):
            raise ValueError(f"a mixture needs each group or source once, found {names}")
        steps = [change.from_step for change in self.changes]
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError(f"changes need rising steps, found {steps}")
        if wrong := [change for change in self.changes if len(change.weights) != len(names)]:
            raise ValueError(f"a change needs a weight for each of {len(names)} groups, found {len(wrong[0].weights)}")
        return self


def parts_of(weights: tuple[float, ...]) -> tuple[int, ...]:
    """The weights as whole parts of `PARTS` in all: those with the largest remainders are rounded up."""
    exact = [Fraction(weight) * PARTS / sum(map(Fraction, weights)) for weight in weights]
    parts = [int(share) for share in exact]
    most_lost = sorted(range(len(exact)), key=lambda number: parts[number] - exact[number])
    for number in most_lost[: PARTS - sum(parts)]:
        parts[number] += 1
    return tuple(parts)
