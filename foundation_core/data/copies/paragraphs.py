"""Paragraph deduplication: a paragraph stays in the first document that has it, in the order of document ids.

    parts --digest--> paragraphs by hash --match--> those that came before --> documents that lose too much are dropped
                                         --match--> without these --rewrite--> parts without repeated paragraphs

Paragraphs are compared by 128 bits of BLAKE2b, so two different ones count as one with a chance that nobody will see.
Digests lie on disk, sorted; a match reads one range of them from every unit, so memory is bounded whatever the corpus.

The second match leaves out the documents that the first one dropped: a paragraph that is removed stands in an earlier
document that stays. What stays then loses no more than before, so nothing else is dropped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foundation_core.data.rules.filters import DROPPED, beginnings
from foundation_core.data.shards.dataset import arrow_bytes, read_arrow
from foundation_core.data.units.corpus import Part, Removed
from foundation_core.data.units.work import KEPT_FILE, SKETCHES_FILE, Unit, Work
from foundation_core.specs import ParagraphDedupSpec

DIGESTS_FILE, LENGTHS_FILE, REPEATS_FILE, GONE_FILE = (
    f"{name}.arrow" for name in ("digests", "lengths", "repeats", "gone")
)
_DIGESTS = pa.schema(
    {"high": pa.uint64(), "low": pa.uint64(), "row": pa.int32(), "paragraph": pa.int32(), "characters": pa.int32()}
)
_BETWEEN = re.compile(r"(\n(?:[^\S\n]*\n)+)")
"""A line's end and the blank lines behind it."""
_PARAGRAPHS_PER_MATCH = 1 << 21
"""Paragraphs that are compared at once."""
_ROW_BITS = 32


@dataclass(frozen=True)
class DigestPiece:
    """The paragraphs of a part, to be digested."""

    unit: Unit
    part: Part
    least_characters: int

    def __str__(self) -> str:
        """Whose they are."""
        return f"paragraphs of {self.part.read.folder.name}"


@dataclass(frozen=True)
class MatchPiece:
    """A range of all digests, to be searched for repeats.

    Args:
        digests: the files of all parts, in order.
        bounds: first and last digest, by their upper 64 bits.
        gone: the file of the documents that do not count. None: all count.
    """

    unit: Unit
    digests: tuple[Path, ...]
    bounds: tuple[int, int]
    gone: Path | None

    def __str__(self) -> str:
        """Which they are."""
        return f"repeated paragraphs from {self.bounds[0]:016x} to {self.bounds[1]:016x}"


@dataclass(frozen=True)
class RewritePiece:
    """The documents of a part, to be written without repeated paragraphs.

    Args:
        number: of the part.
        sketch: computed of each text anew, for fuzzy deduplication. None: nothing.
    """

    unit: Unit
    part: Part
    number: int
    repeats: tuple[Path, ...]
    sketch: Callable[[pa.Array], pa.Array] | None

    def __str__(self) -> str:
        """Whose they are."""
        return f"documents of {self.part.read.folder.name} without repeated paragraphs"


def without_repeats(
    parts: Sequence[Part], spec: ParagraphDedupSpec, sketch: Callable[[pa.Array], pa.Array] | None, work: Work,
    dropped_characters: int = 0,
) -> tuple[list[Part], Removed]:  # fmt: skip
    """The parts without repeated paragraphs and the documents that would lose too much, and what was removed.

    Args:
        parts: in the order of document ids.
        dropped_characters: that are kept of the texts of these documents.
    """
    digests = [
        DigestPiece(_unit(work, "digest", number, part), part, spec.least_characters)
        for number, part in enumerate(parts)
    ]
    work.finish("digest", digest_unit, digests)
    units = [piece.unit for piece in digests]
    repeats = _match(units, None, work)
    stay, gone = list[Part](), list[NDArray[np.int64]]()
    for number, part in enumerate(parts):
        lost = _lost(part, number, units[number], repeats)
        which = lost > spec.most_lost_fraction
        dropped = _dropped(part, lost, which, spec.most_lost_fraction, dropped_characters)
        stay.append(part.without("paragraphs", pa.array(which), dropped))
        gone.append(number << _ROW_BITS | part.rows().to_numpy()[which])
    if any(len(some) for some in gone):
        repeats = _match(units, _committed_gone(gone, units, work), work)
    return _rewritten(stay, repeats, sketch, work)


def _rewritten(
    parts: Sequence[Part], repeats: Sequence[Path], sketch: Callable[[pa.Array], pa.Array] | None, work: Work
) -> tuple[list[Part], Removed]:
    pieces, removed = dict[int, RewritePiece](), Removed()
    for number, part in enumerate(parts):
        found = _repeats_of(number, repeats)
        if len(found.row):
            unit = _unit(work, "rewrite", number, part)
            pieces[number] = RewritePiece(unit, part, number, tuple(repeats), sketch)
            sizes = len(found.row), int(found.characters.sum()), len(np.unique(found.row))
            removed = Removed(*(before + more for before, more in zip(removed, sizes, strict=True)))
    work.finish("rewrite", rewrite_unit, list(pieces.values()))
    rewritten = [part.rewritten(pieces[number].unit) if number in pieces else part for number, part in enumerate(parts)]
    return rewritten, removed


def _match(digests: Sequence[Unit], gone: Unit | None, work: Work) -> list[Path]:
    """The files of all repeats."""
    files = tuple(unit.folder / DIGESTS_FILE for unit in digests)
    count = max(1, -(-sum(len(read_arrow(file)) for file in files) // _PARAGRAPHS_PER_MATCH))
    edges = [(number << 64) // count for number in range(count + 1)]
    phase = "match" if gone is None else "match again"
    known = [str(count), *(unit.identity for unit in (*digests, *([gone] if gone else [])))]
    pieces = [
        MatchPiece(work.unit(phase, number, known), files, (first, last - 1), gone.folder / GONE_FILE if gone else None)
        for number, (first, last) in enumerate(pairwise(edges))
    ]
    work.finish(phase, match_unit, pieces)
    return [piece.unit.folder / REPEATS_FILE for piece in pieces]


def digest_unit(piece: DigestPiece) -> None:
    """Commit the digests of a part's longer paragraphs, sorted, and the characters of each of its texts."""
    found, lengths = list[tuple[bytes, int, int, int]](), list[int]()
    for row, text in _texts(piece.part):
        paragraphs = [paragraph.strip() for paragraph in _BETWEEN.split(text)[::2]]
        lengths.append(sum(map(len, paragraphs)))
        for number, paragraph in enumerate(paragraphs):
            if len(paragraph) >= piece.least_characters:
                digest = hashlib.blake2b(paragraph.encode(), digest_size=16).digest()
                found.append((digest, row, number, len(paragraph)))
    halves = np.frombuffer(b"".join(one[0] for one in found), ">u8").astype(np.uint64).reshape(-1, 2)
    places = np.array([one[1:] for one in found], np.int32).reshape(-1, 3)
    order = np.lexsort((places[:, 1], places[:, 0], halves[:, 1], halves[:, 0]))
    columns = [*halves[order].T, *places[order].T]
    table = pa.table([np.ascontiguousarray(column) for column in columns], schema=_DIGESTS)
    sizes = pa.table({"characters": pa.array(lengths, pa.int64())})
    piece.unit.commit({DIGESTS_FILE: arrow_bytes(table), LENGTHS_FILE: arrow_bytes(sizes)})


def match_unit(piece: MatchPiece) -> None:
    """Commit the paragraphs in a range of digests that an earlier document has, sorted by part."""
    ranges = [_range(file, *piece.bounds) for file in piece.digests]
    high, low, row, paragraph, characters = (
        np.concatenate([part[name].to_numpy() for part in ranges]) for name in _DIGESTS.names
    )
    number = np.repeat(np.arange(len(ranges), dtype=np.int64), [len(part) for part in ranges])
    document = number << _ROW_BITS | row
    counts = np.ones(len(row), np.bool_)
    if piece.gone is not None:
        counts = ~np.isin(document, read_arrow(piece.gone)["document"].to_numpy())
    order = np.flatnonzero(counts)
    order = order[np.lexsort((paragraph[order], document[order], low[order], high[order]))]
    starts = np.ones(len(order), np.bool_)
    starts[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    first = np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
    repeated = np.sort(order[document[order] != document[order][first]])
    repeated = repeated[np.lexsort((paragraph[repeated], document[repeated]))]
    columns = {"part": number, "row": row, "paragraph": paragraph, "characters": characters}
    table = pa.table({name: column[repeated] for name, column in columns.items()})
    piece.unit.commit({REPEATS_FILE: arrow_bytes(table)})


def rewrite_unit(piece: RewritePiece) -> None:
    """Commit a part's documents without the paragraphs that an earlier one has."""
    removed = dict[int, set[int]]()
    found = _repeats_of(piece.number, piece.repeats)
    for row, paragraph in zip(found.row.tolist(), found.paragraph.tolist(), strict=True):
        removed.setdefault(row, set()).add(paragraph)
    documents, rows = piece.part.documents(), piece.part.rows().to_pylist()
    texts = [
        _without(text, removed[row]) if row in removed else text
        for row, text in zip(rows, documents["text"].to_pylist(), strict=True)
    ]
    data = [text.encode() for text in texts]
    columns = {
        "text": pa.array(texts, pa.large_string()),
        "bytes": pa.array(map(len, data), pa.int64()),
        "sha256": pa.array([hashlib.sha256(one).hexdigest() for one in data], pa.string()),
    }
    for name, column in columns.items():
        documents = documents.set_column(documents.schema.get_field_index(name), name, column)
    tables = {KEPT_FILE: documents}
    if piece.sketch is not None:
        tables[SKETCHES_FILE] = pa.table({"keys": piece.sketch(columns["text"])})
    piece.unit.commit({name: arrow_bytes(table) for name, table in tables.items()})


def _without(text: str, removed: set[int]) -> str:
    """The text without some of its paragraphs, and without what stood before each of them, or behind the first."""
    pieces = ["", *_BETWEEN.split(text)]
    stay = [number for number in range(len(pieces) // 2) if number not in removed]
    return "".join(pieces[2 * number] * (place > 0) + pieces[2 * number + 1] for place, number in enumerate(stay))


class _Repeats(NamedTuple):
    """Paragraphs of a part that an earlier document has: their rows, numbers in the text, and lengths."""

    row: NDArray[np.int32]
    paragraph: NDArray[np.int32]
    characters: NDArray[np.int32]


def _repeats_of(number: int, files: Sequence[Path]) -> _Repeats:
    columns = list[list[NDArray[np.int32]]]()
    for file in files:
        table = read_arrow(file)
        first, last = np.searchsorted(_column(table, "part"), [number, number + 1])
        columns.append([_column(table, name)[first:last] for name in _Repeats._fields])
    return _Repeats(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def _range(file: Path, first: int, last: int) -> pa.Table:
    """The rows of a file of digests whose upper halves lie between two bounds, both included."""
    table = read_arrow(file)
    high = _column(table, "high")
    begin = int(np.searchsorted(high, np.uint64(first), "left"))
    return table.slice(begin, int(np.searchsorted(high, np.uint64(last), "right")) - begin)


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    """A column of a file as it lies in its memory map: only what is looked at is read."""
    column = table[name]
    return np.asarray(column.chunk(0).to_numpy() if column.num_chunks else column.to_numpy())


def _lost(part: Part, number: int, digests: Unit, repeats: Sequence[Path]) -> NDArray[np.float64]:
    """The share of each text's characters that stand in repeated paragraphs, in the order of the part's rows."""
    found, rows = _repeats_of(number, repeats), part.rows().to_numpy()
    lengths = digests.table(LENGTHS_FILE)["characters"].to_numpy()
    lost = np.bincount(found.row, found.characters.astype(np.float64), minlength=int(rows.max(initial=0)) + 1)
    return np.asarray(lost[rows] / np.maximum(lengths, 1), np.float64)


def _committed_gone(gone: Sequence[NDArray[np.int64]], known: Sequence[Unit], work: Work) -> Unit:
    """The documents that are dropped, as a file for those who match again."""
    unit = work.unit("gone", 0, [unit.identity for unit in known])
    if not unit.finished():
        unit.commit({GONE_FILE: arrow_bytes(pa.table({"document": np.concatenate(gone)}))})
    return unit


def _dropped(
    part: Part, lost: NDArray[np.float64], gone: NDArray[np.bool_], most: float, characters: int
) -> pa.Table:  # fmt: skip
    table = part.index.select(["document", "group"]).filter(pa.array(gone))
    texts = part.read.table(KEPT_FILE)["text"].take(part.rows().filter(pa.array(gone)))
    columns = {
        "rule": pa.repeat(f"repeated_paragraphs <= {most:g}", len(table)),
        "value": pa.array(lost[gone]),
        "kept": pa.repeat("", len(table)),
        "text": beginnings(texts, characters),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table.cast(DROPPED)


def _unit(work: Work, phase: str, number: int, part: Part) -> Unit:
    return work.unit(phase, number, part.index["document"].to_pylist())


def _texts(part: Part) -> Iterator[tuple[int, str]]:
    """The rows that stay and their texts, one after another."""
    texts = part.read.table(KEPT_FILE)["text"]
    return ((row, texts[row].as_py()) for row in part.rows().to_pylist())
