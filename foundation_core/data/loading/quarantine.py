"""Documents that training must not read: hidden as if they were padding, while every row keeps its place in the order.

    row 7:   a a a b b | . .          b is quarantined:   a a a . . | . .

What is hidden is a function of the row and the set of documents. So any rank hides the same, and a training that finds
a document out goes on like one that never had it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from foundation_core.data.loading.loader import PADDING_VALUES, Batch
from foundation_core.data.loading.order import SampleOrder
from foundation_core.errors import ConfigError

_SAMPLES_AT_ONCE = 1 << 20
_NAMED = 20
"""Documents that a tag names: a store has room for some thousand characters."""


@runtime_checkable
class NamedRows(Protocol):
    """Rows that are made of documents with names."""

    def documents_of(self, indices: Tensor) -> list[list[str]]:
        """The document of each segment of each row; the only one of a row without segments."""

    def rows_of(self, documents: Collection[str]) -> Tensor:
        """(R,) the numbers of the rows that hold something of a document, rising.

        Raises:
            ConfigError: a document is not there.
        """


class Quarantine:
    """Hides documents in batches.

    Raises:
        ConfigError: a document is not among those that the rows are made of.
    """

    def __init__(self, source: NamedRows, documents: Collection[str]) -> None:
        self.source, self.documents = source, frozenset(documents)
        self.rows = source.rows_of(self.documents) if self.documents else torch.empty(0, dtype=torch.int64)

    def tags(self) -> dict[str, str]:
        """What is hidden, as tags of a run: how many, and the first names; nothing where nothing is."""
        if not self.documents:
            return {}
        names = sorted(self.documents)
        more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return {"quarantined": f"{len(names)}: {', '.join(names[:_NAMED])}{more}"}

    def hide(self, indices: Tensor, batch: Batch) -> Batch:
        """The batch without what is of the documents.

        Args:
            indices: (N,) the numbers of its rows.
        """
        if not len(self.rows):
            return batch
        touched = torch.isin(indices, self.rows)
        if not touched.any():
            return batch
        if "values" in batch:  # a sample is a document
            return without_rows(batch, touched)
        named = iter(self.source.documents_of(indices[touched]))
        hidden = [[n for n, name in enumerate(next(named)) if name in self.documents] if t else [] for t in touched]
        return without_segments(batch, hidden)


def without_rows(batch: Batch, rows: Tensor) -> Batch:
    """The batch with padding in place of some rows.

    Args:
        rows: (N,) bool.
    """
    return {
        name: values.masked_fill(rows.view(-1, *[1] * (values.dim() - 1)), PADDING_VALUES.get(name, 0))
        for name, values in batch.items()
    }


def without_segments(batch: Batch, segments: Sequence[Sequence[int]]) -> Batch:
    """The batch with padding in place of some segments of each row."""
    places = torch.zeros_like(batch["segment"], dtype=torch.bool)
    for row, hidden in enumerate(segments):
        if hidden:
            places[row] = torch.isin(batch["segment"][row], torch.tensor(hidden, dtype=batch["segment"].dtype))
    kept = {name: values for name, values in batch.items() if name not in ("tokens", "segment", "position")}
    text = {
        name: batch[name].masked_fill(places, PADDING_VALUES.get(name, 0)) for name in ("tokens", "segment", "position")
    }
    return {**text, **kept}


def first_sample(order: SampleOrder, rows: Tensor, samples: int) -> int | None:
    """The number of the first sample that is one of the rows; None if none of the first `samples` is."""
    for start in range(0, samples, _SAMPLES_AT_ONCE):
        found = torch.isin(order.take(start, min(_SAMPLES_AT_ONCE, samples - start)), rows).nonzero()
        if len(found):
            return start + int(found[0])
    return None


def places_of(table: pa.Table, documents: Collection[str]) -> Tensor:
    """(D,) the places in a shard's table of those documents that are in it."""
    found = pc.is_in(table["document"], value_set=pa.array(sorted(documents), table.schema.field("document").type))
    return from_dlpack(pc.indices_nonzero(found).cast(pa.int64()))


def names_at(table: pa.Table, places: Tensor) -> list[str]:
    """The names of the documents at places of a shard's table."""
    names: list[str] = table["document"].take(pa.array(places.tolist(), pa.int64())).to_pylist()
    return names


def require_all(documents: Collection[str], found: Collection[str]) -> None:
    """Refuse documents that were not found: one that was misspelt would hide nothing.

    Raises:
        ConfigError: there are some.
    """
    missing = sorted(set(documents) - set(found))
    if missing:
        raise ConfigError(
            f"pretrain.quarantined names {missing[0]!r}, which is no document of the training split",
            allowed="ids of its documents",
            fix="correct it; `foundation peek` shows ids",
        )
