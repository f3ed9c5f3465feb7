"""Token shards read as rows of equal length: which rows there are, and their tokens.

    shard:   a a a | b b | c c c c |           (T = 3; each document ends with its end token)
    row 0:   a a a   b                         tokens 0..3
    row 1:           b b   c c                 tokens 3..6: the last of one is the first of the next
    row 2:                 c c c .             tokens 6..9: padded

That is `cut`; the other two ways are in pieces.py. A row holds T + 1 tokens: T to read and T to predict. Which tokens
are of one document is said beside them, so that documents need not read each other.

Legend: N rows, P pieces of documents, T context tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from types import ModuleType
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from foundation_core.data.loading.mixture_entries import Choice, called, choosable, is_of, require_apart
from foundation_core.data.loading.pieces import (
    Cut,
    Documents,
    Pieces,
    Plan,
    machine_code,
    packed,
    packed_rows,
    pieces_of,
    row_count,
)
from foundation_core.data.loading.quarantine import names_at, places_of, require_all
from foundation_core.data.loading.row_places import RowPlaces, in_order, padded_places
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs.loading import Packing

COMPILED_FROM_TOKENS = 20_000_000
"""Tokens of a data set from which on its rows are made by machine code: a smaller one saves less than importing numba
costs. Both ways give the same rows."""

_COUNTED_BY_CODE_DOCUMENTS = 5_000_000
"""Documents from which on rows are counted by machine code, too: a training on fewer starts before it is loaded."""

OPEN_SHARDS = 16_384
"""Shards that are mapped at a time, at the most: a process may have 65,530 maps (Linux's vm.max_map_count)."""

_NO_PIECES = Pieces(*torch.empty(3, 0, dtype=torch.int64))


class Size(NamedTuple):
    """How much there is of a source."""

    rows: int
    tokens: int
    documents: int


class _Stream(NamedTuple):
    """A shard's tokens, and how a cell's rows are made of them.

    Args:
        rows: (rows, T + 1), the tokens of each row, without a copy; the last rows are not there where they would reach
            beyond the tokens. None: a row's tokens are not one run.
    """

    tokens: Tensor
    plan: Plan
    rows: Tensor | None


class Windows:
    """Every row of a token data set, by number: group by group, where there are groups, and shard by shard.

    Args:
        groups: groups, or sources, whose documents are read, each in rows of its own. None: all documents.
        compiled: whether rows are made by machine code, where numba is installed. None: of `COMPILED_FROM_TOKENS` on.

    Raises:
        ConfigError: no document is of a group.
        DataError: the data set has too few tokens for a single label.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        context_tokens: int,
        packing: Packing = "cut",
        groups: Sequence[Choice] | None = None,
        compiled: bool | None = None,
    ) -> None:
        self._is_compiled = dataset.tokens >= COMPILED_FROM_TOKENS if compiled is None else compiled
        self.dataset, self.context_tokens, self.packing, self.groups = dataset, context_tokens, packing, groups
        self._of: list[Choice | None] = [None] if groups is None else list(groups)
        if packing == "cut" and groups is None:
            self._counts = self._counted_by_manifest()
        else:
            dataset.prepare(range(dataset.shards))
            if dataset.shards <= OPEN_SHARDS:
                for shard in range(dataset.shards):  # all before the first count, whose memory is in one piece then
                    dataset.unverified(shard)
            cells = range(len(self._of) * dataset.shards)
            self._counts = torch.tensor([self._counted(cell) for cell in cells], dtype=torch.int64)
        rows = self._counts[:, 0]
        self._ends = rows.cumsum(0)
        self._firsts = self._ends - rows
        self._streams: dict[int, _Stream] = {}
        self._unopened = int((rows > 0).sum())
        self._told = torch.zeros((len(rows), 5), dtype=torch.int64)  # what `fused` is told of each cell
        if len(self) == 0:
            raise DataError(
                f"{dataset.folder} holds {dataset.tokens} tokens: there is nothing to predict in it",
                fix="add documents, or give this split a larger fraction",
            )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def sizes(self) -> dict[Choice | None, Size]:
        """How much there is of each group or source, in their order.

        Raises:
            ConfigError: one has no row, or a group and a source share documents.
        """
        sums = self._counts.view(len(self._of), self.dataset.shards, 4).sum(1)[:, :3].tolist()
        found = {group: Size(*counts) for group, counts in zip(self._of, sums, strict=True)}
        choices = [choice for choice in self._of if choice is not None]
        for choice in choices:
            if not found[choice].rows:
                raise ConfigError(
                    f"{self.dataset.folder} has nothing to predict in the {called(choice)}",
                    allowed=choosable(self._tables(), choice),
                    fix="name groups, or sources, that the ingest result's training split has",
                )
        require_apart(self._tables(), choices)
        return found

    def filled_fraction(self) -> float:
        """Labels and first tokens over all places of all rows; the rest is padding."""
        return int(self._counts[:, 3].sum()) / (len(self) * (self.context_tokens + 1))

    def pieces_of_shard(self, shard: int) -> tuple[int, Pieces]:
        """The number of a shard's first row, and the pieces of all of its rows, where documents have no groups."""
        assert self.groups is None, "a shard has rows of each group"
        (stream,) = self._opened([shard])
        first = int(self._firsts[shard])
        return first, stream.plan.pieces(torch.arange(int(self._ends[shard]) - first))

    def gather(self, indices: Tensor) -> dict[str, Tensor]:
        """The rows of those numbers, each tensor (N, T + 1) int32: half of what a model's int64 takes on the way.

        Returns:
            tokens: token ids; 0 where there is padding.
            segment: which document of its row a token belongs to, from 0; -1 for padding.
            position: the token's place in that document's part of the row, from 0; 0 for padding.

        Raises:
            IndexError: there is no such row.
        """
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(f"rows {int(indices.min())} to {int(indices.max())} of {len(self)}")
        return self._compiled(indices) if self._code else self._by_torch(indices)

    def documents_of(self, indices: Tensor) -> list[list[str]]:
        """The document of each segment of each row."""
        found = []
        for index, cell in zip(indices, torch.searchsorted(self._ends, indices, right=True).tolist(), strict=True):
            pieces = self._opened([cell])[0].plan.pieces((index - self._firsts[cell])[None])
            table = self.dataset.table(self._place(cell)[0])
            found.append(names_at(table, torch.searchsorted(_offsets(table), pieces.start, right=True) - 1))
        return found

    def rows_of(self, documents: Collection[str]) -> Tensor:
        """(R,) the numbers of the rows that hold something of a document, rising."""
        found, rows = set[str](), [torch.empty(0, dtype=torch.int64)]
        for cell, rows_of_cell in enumerate(self._counts[:, 0].tolist()):
            table = self.dataset.unverified(self._place(cell)[0])
            places = places_of(table, documents)
            found.update(names_at(table, places))
            if len(places) and rows_of_cell:
                plan, offsets = self._opened([cell])[0].plan, _offsets(table).tolist()
                rows += [plan.rows_of(offsets[n], offsets[n + 1]) + self._firsts[cell] for n in places.tolist()]
        require_all(documents, found)
        together: Tensor = torch.unique(torch.cat(rows))
        return together

    @cached_property
    def _code(self) -> ModuleType | None:
        return machine_code() if self._is_compiled else None

    def _compiled(self, indices: Tensor) -> dict[str, Tensor]:
        """The rows in one pass over all shards."""
        assert self._code is not None, "gather asks for it"
        if self._unopened:
            self._opened(torch.unique(torch.searchsorted(self._ends, indices, right=True)).tolist())
        # one piece of memory: malloc gives three that are freed together back to the system, and clearing pages anew
        # takes three times as long as writing the rows
        batch = torch.empty((3, len(indices), self.context_tokens + 1), dtype=torch.int32)
        numbers = [values.numpy() for values in (indices, self._ends, self._told)]
        if self.packing == "cut":
            self._code.gather_cut(*numbers, self.context_tokens, *batch.numpy())
        else:
            self._code.gather_packed(*numbers, *batch.numpy())
        return dict(zip(("tokens", "segment", "position"), batch, strict=True))

    def _by_torch(self, indices: Tensor) -> dict[str, Tensor]:
        """The rows shard by shard."""
        cells = torch.searchsorted(self._ends, indices, right=True)
        by_cell = cells.argsort(stable=True)
        found, counts = torch.unique(cells, return_counts=True)
        numbers = torch.split((indices - self._firsts[cells])[by_cell], counts.tolist())
        back = torch.empty_like(by_cell).scatter_(0, by_cell, torch.arange(len(by_cell)))

        streams = self._opened(found.tolist())
        pieces = [stream.plan.pieces(rows) for stream, rows in zip(streams, numbers, strict=True)]
        together = Pieces(*(torch.cat(parts) for parts in zip(_NO_PIECES, *pieces, strict=True)))
        tokens = self._tokens(streams, numbers, padded_places(together, self.context_tokens + 1))
        places = padded_places(in_order(together, back), self.context_tokens + 1)
        return {"tokens": tokens.index_select(0, back), "segment": places.segments(), "position": places.positions()}

    def _tokens(self, streams: Sequence[_Stream], numbers: Sequence[Tensor], places: RowPlaces) -> Tensor:
        """The tokens of the rows, cell by cell: copied row by row where a row is one run, else token by token."""
        tokens, index, row = torch.empty((places.rows, places.width), dtype=torch.int32), None, 0
        for stream, mine in zip(streams, numbers, strict=True):
            here = tokens[row : row + len(mine)]
            if stream.rows is not None and int(mine.max()) < len(stream.rows):
                torch.index_select(stream.rows, 0, mine, out=here)
            else:
                index = places.shard_places() if index is None else index
                torch.index_select(stream.tokens, 0, index[row : row + len(mine)].view(-1), out=here.view(-1))
            row += len(mine)
        places.fill(tokens, 0)
        return tokens

    def _opened(self, cells: Sequence[int]) -> list[_Stream]:
        if self._unopened:
            self._close_for(cells)
            self.dataset.prepare({self._place(cell)[0] for cell in cells})
        return [self._stream(cell) for cell in cells]

    def _close_for(self, cells: Sequence[int]) -> None:
        """Close the cells that were opened first, where there would be too many of them with these."""
        needed = set(cells)
        surplus = len(self._streams) + len(needed - self._streams.keys()) - OPEN_SHARDS
        if surplus > 0:
            for cell in [cell for cell in self._streams if cell not in needed][:surplus]:
                del self._streams[cell]
                self._told[cell] = 0
                self._unopened += 1
                self.dataset.close(self._place(cell)[0])

    def _tables(self) -> Iterator[pa.Table]:
        """Every shard, as it lies there."""
        for shard in range(self.dataset.shards):
            yield self.dataset.unverified(shard)
            if self.dataset.shards > OPEN_SHARDS:
                self.dataset.close(shard)

    def _place(self, cell: int) -> tuple[int, Choice | None]:
        """Shard and group of a cell: the documents of a shard that are of one group or source, or all of them."""
        group, shard = divmod(cell, self.dataset.shards)
        return shard, self._of[group]

    def _stream(self, cell: int) -> _Stream:
        if cell not in self._streams:
            shard, group = self._place(cell)
            table, size_tokens = self.dataset.table(shard), int(self._counts[cell, 1])
            tokens, documents = _documents(table, group)
            plan: Plan = Cut(documents, self.context_tokens)
            rows = None
            if self.packing != "cut":
                plan = packed(documents, self.context_tokens, self.packing, self._code)
            elif (first := int(documents.start[0])) + size_tokens == int(documents.start[-1] + documents.length[-1]):
                inside = (size_tokens - 1) // self.context_tokens
                rows = tokens[first:].as_strided((inside, self.context_tokens + 1), (self.context_tokens, 1))
            self._streams[cell] = _Stream(tokens, plan, rows)
            arrays = plan.arrays()
            addresses = [array.data_ptr() for array in (tokens, *arrays)]
            self._told[cell, : len(addresses)] = torch.tensor(addresses)
            self._told[cell, -1] = len(arrays[0])
            self._unopened -= 1
        return self._streams[cell]

    def _counted_by_manifest(self) -> Tensor:
        """What `_counted` says of every shard, where no shard has to be opened for it."""
        shards = self.dataset.manifest["shards"]
        tokens = torch.tensor([shard["tokens"] for shard in shards], dtype=torch.int64)
        documents = torch.tensor([shard["rows"] for shard in shards], dtype=torch.int64)
        rows = ((tokens - 1).clamp(min=0) + self.context_tokens - 1) // self.context_tokens
        filled = torch.where(rows > 0, tokens + rows - 1, 0)  # two rows share a token
        return torch.stack([rows, tokens, documents, filled], dim=1)

    def _counted(self, cell: int) -> tuple[int, int, int, int]:
        """Rows, tokens, documents and filled places of a cell: which rows they are is found when one is read."""
        shard, group = self._place(cell)
        _, documents = _documents(self.dataset.unverified(shard), group)
        tokens, count = documents.tokens, len(documents.start)
        if self.packing == "cut":
            rows = row_count(tokens, self.context_tokens)
            filled = tokens + rows - 1 if rows else 0
        else:
            code = self._code if self.dataset.rows >= _COUNTED_BY_CODE_DOCUMENTS else None
            rows = packed_rows(documents, self.context_tokens, self.packing, code)
            pieces = pieces_of(documents, self.context_tokens)
            filled = int((documents.length + pieces - 1)[pieces > 0].sum())
        if self.dataset.shards > OPEN_SHARDS:
            self.dataset.close(shard)
        return rows, tokens, count, filled


def _documents(table: pa.Table, group: Choice | None) -> tuple[Tensor, Documents]:
    """A shard's tokens, end to end, and its documents that are of a group or source."""
    column, offsets = table["tokens"].chunk(0), _offsets(table)  # a shard is one record batch
    if group is None:
        return from_dlpack(column.values), Documents(offsets[:-1], offsets)
    of_group = from_dlpack(pc.indices_nonzero(is_of(table, group)).cast(pa.int64()))
    bounds = torch.nn.functional.pad(offsets.diff()[of_group].cumsum(0), (1, 0))
    return from_dlpack(column.values), Documents(offsets[:-1][of_group], bounds)


def _offsets(table: pa.Table) -> Tensor:
    """(D + 1,) where a shard's documents begin in its tokens, and the last one ends."""
    return from_dlpack(table["tokens"].chunk(0).offsets)
