"""Samples by number: values of images, audio and series, normalised, with their captions where they have some.

The counterpart of `packing.Windows`: a `Loader` reads both. A sample is a row; rows are not packed.

Legend: N samples, C channels, H height, W width, L caption tokens.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from foundation_core.data.loading.quarantine import names_at, places_of, require_all
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.values.features import Features, values_of
from foundation_core.errors import DataError
from foundation_core.shape import SampleShape

PADDING = -1
"""Segment of a place where no caption token stands."""


class Samples:
    """Every sample of a data set, by number.

    A caption that is cut keeps its end token as the last one, as CLIP's texts do: who reads the text by that token
    finds it, and who writes captions learns from each that it ends, for there is no room behind it. Without it a model
    that saw long captions alone would never end one.

    Args:
        caption_tokens: tokens that a caption is padded or cut to, L. None: those of the longest one.

    Raises:
        DataError: the data set has no samples.
    """

    def __init__(self, dataset: ShardDataset, features: Features, caption_tokens: int | None = None) -> None:
        self.dataset, self.features = dataset, features
        self._ends = torch.tensor([shard["rows"] for shard in dataset.manifest["shards"]], dtype=torch.int64).cumsum(0)
        if len(self) == 0 or "values" not in dataset.table(0).schema.names:
            raise DataError(f"{dataset.folder} holds no samples", fix="name the samples of an ingest result")
        shape = features.shape
        self._size = shape.channels * shape.height * shape.width
        self.captioned = "tokens" in dataset.table(0).schema.names
        self.caption_tokens = caption_tokens or (self._longest_caption() if self.captioned else 0)

    @property
    def shape(self) -> SampleShape:
        """What a model has to be built for."""
        return self.features.shape

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def gather(self, indices: Tensor) -> dict[str, Tensor]:
        """The samples of those numbers.

        Returns:
            values: (N, C, H, W) float32, normalised.
            tokens: (N, L) int64, the caption, its end token last; 0 where there is padding. With captions only.
            segment: (N, L) int64, 0 for the caption and -1 for padding. With captions only.
        """
        count, length = len(indices), self.caption_tokens
        values = torch.empty((count, self._size), dtype=torch.float32)
        captions = {
            "tokens": torch.zeros((count, length), dtype=torch.int64),
            "segment": torch.full((count, length), PADDING),
        }
        shards = torch.searchsorted(self._ends, indices, right=True)
        for shard in torch.unique(shards).tolist():
            here = (shards == shard).nonzero().squeeze(1)
            table = self.dataset.table(shard)
            rows = indices[here] - self._ends[shard] + len(table)
            values[here] = values_of(table)[rows].float()
            if self.captioned:
                captions["tokens"][here], captions["segment"][here] = _captions(table, rows, length)
        batch = {"values": self.features.normalise(values)}
        return batch | captions if self.captioned else batch

    def documents_of(self, indices: Tensor) -> list[list[str]]:
        """The document of each sample."""
        found = []
        for index, shard in zip(indices, torch.searchsorted(self._ends, indices, right=True).tolist(), strict=True):
            table = self.dataset.table(shard)
            found.append([table["document"][int(index - self._ends[shard]) + len(table)].as_py()])
        return found

    def rows_of(self, documents: Collection[str]) -> Tensor:
        """(R,) the numbers of the samples that are those documents, rising."""
        found, rows = set[str](), [torch.empty(0, dtype=torch.int64)]
        for shard, end in enumerate(self._ends.tolist()):
            table = self.dataset.unverified(shard)
            places = places_of(table, documents)
            found.update(names_at(table, places))
            rows.append(places + (end - len(table)))
        require_all(documents, found)
        return torch.cat(rows)

    def groups(self) -> list[str]:
        """The group of every sample: its label, or empty."""
        return self._column("group")

    def documents(self) -> list[str]:
        """The document id of every sample."""
        return self._column("document")

    def captions(self) -> list[str]:
        """The caption of every sample, as text."""
        return self._column("caption")

    def captions_cut(self) -> tuple[int, int]:
        """How many captions are longer than `caption_tokens`, and of how many: of all, by their lengths alone; where
        shards are brought from a store, of the first one's, as the others are not brought for it."""
        cut = looked_at = 0
        for shard in range(self.dataset.shards if self.dataset.shelf is None else 1):
            lengths = from_dlpack(self.dataset.unverified(shard)["tokens"].chunk(0).offsets).diff()
            cut += int((lengths > self.caption_tokens).sum())
            looked_at += len(lengths)
            if shard:  # the first one is open anyway
                self.dataset.close(shard)
        return cut, looked_at

    def _column(self, name: str) -> list[str]:
        return [value for table in self.dataset.tables() for value in table[name].to_pylist()]

    def _longest_caption(self) -> int:
        return max(int(from_dlpack(table["tokens"].chunk(0).offsets).diff().max()) for table in self.dataset.tables())


def _captions(table: pa.Table, rows: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Tokens and segment of some rows' captions, (N, L) each."""
    column = table["tokens"].chunk(0)  # a shard is one record batch
    tokens, starts = from_dlpack(column.values), from_dlpack(column.offsets)
    first, end = starts[rows][:, None], starts[rows + 1][:, None]
    place = first + torch.arange(length)
    padding = place >= end
    place[:, -1:] = torch.maximum(place[:, -1:], end - 1)  # of one that is cut, its end token
    found = tokens[place.clamp_(max=len(tokens) - 1)].long()
    return found.masked_fill_(padding, 0), torch.zeros_like(found).masked_fill_(padding, PADDING)
