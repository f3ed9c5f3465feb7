"""A look into a data set as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from foundation_core.pages.packed import Window
from foundation_core.pages.peek import COLOURS, Document, Peek, Piece
from foundation_core.pages.rendering import ends, figure, harmless
from foundation_core.pages.values import Values

PALETTE = ("black on #9cc4ee", "black on #f2b885", "black on #94d3b4", "black on #cfaee3", "black on #eba9b6")
assert len(PALETTE) == COLOURS
PICTURE_CHARACTERS = 64
_LINE = "▁▂▃▄▅▆▇█"
_UPPER_HALF = "▀"


def screen(look: Peek, *, ids: bool) -> RenderableType:
    """What is printed.

    Args:
        ids: whether each token's id stands behind it.
    """
    table = _table("data set", "rows", "tokens", "shards")
    for name, (rows, tokens, shards) in look.counts.items():
        table.add_row(name, f"{rows:,}", f"{tokens:,}" if tokens else "", f"{shards:,}")
    parts: list[RenderableType] = [Text(str(look.folder), "dim"), table]
    parts += [part for document in look.documents for part in _document(document, ids=ids)]
    for row in look.rows:
        parts += _window(row, look, ids=ids)
    return Group(*parts)


def _document(document: Document, *, ids: bool) -> Iterable[RenderableType]:
    yield Text()
    yield Rule(Text(harmless(document.id), "bold"), align="left")
    facts = [f"{name} {figure(value) if isinstance(value, int | float) else value}"
             for name, value in document.facts.items() if value not in ("", None)]  # fmt: skip
    tokens = [f"{document.tokens:,} tokens"] if document.tokens else []
    yield Text(harmless(" · ".join([document.state, *facts, *tokens])), "dim")
    for place in document.places:
        yield Text.assemble((place.dataset, "cyan"), f"  shard {place.shard} ({place.file}), row {place.row:,}")
    if document.values is not None:
        yield from _values(document.values)
    if document.values is not None and document.text:
        yield Text(f"caption: {harmless(document.text)}")
    if document.pieces:
        yield Padding(_pieces(document.pieces, ids=ids), (1, 0, 0, 0))
        if document.tokens > len(document.pieces):
            yield Text(f"and {document.tokens - len(document.pieces):,} more tokens", "dim")
    elif document.text and document.values is None:
        yield Padding(Text(harmless(document.text)), (1, 0, 0, 0))
    if document.neighbours:
        yield Padding(_lost(document.neighbours), (1, 0, 0, 0))


def _pieces(pieces: Sequence[Piece], *, ids: bool) -> Text:
    text = Text()
    for number, piece in enumerate(pieces):
        text.append(ends(piece.text), PALETTE[number % COLOURS])
        if ids:
            text.append(f"{piece.id} ", "dim")
    return text


def _lost(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("dropped nearby", "rule", "value", "the copy that stays", right=("value",))
    for row in rows:
        document, rule, kept = (Text(harmless(row.get(name) or "")) for name in ("document", "rule", "kept"))
        table.add_row(document, rule, figure(row.get("value")), kept)
    return table


def _window(row: Window, look: Peek, *, ids: bool) -> Iterable[RenderableType]:
    yield Text()
    yield Rule(Text(f"packed row {row.number:,} of {row.of:,} in {row.split} ({look.packing})", "bold"), align="left")
    text = Text()
    table = _table("", "document", "", "places", "positions", right=("places", "positions"))
    for segment in row.segments:
        style = PALETTE[segment.number % COLOURS]
        text.append("▌" if segment.begins else "", "bold red")
        for piece in look.pieces(segment.tokens):
            text.append(ends(piece.text), style)
            if ids:
                text.append(f"{piece.id} ", "dim")
        last = segment.first + len(segment.tokens) - 1
        places, positions = f"{segment.first} to {last}", " to ".join(map(str, segment.positions))
        said = "begins here" if segment.begins else "goes on"
        table.add_row(Text("  ", style), Text(harmless(segment.document)), said, places, positions)
    if row.padding:
        table.add_row("", "padding", "", f"{row.padding}", "")
    yield text
    yield Padding(table, (1, 0, 0, 0))


def _values(values: Values) -> Iterable[RenderableType]:
    channels, height, width = values.shape
    yield Text(
        f"{channels} × {height} × {width} values (channels, height, width), smallest {figure(values.smallest)},"
        f" mean {figure(values.mean)}, largest {figure(values.largest)}, deviation {figure(values.deviation)}"
    )
    for line in values.lines:
        step = -(-len(line) // PICTURE_CHARACTERS)
        yield Text("".join(_LINE[min(7, int(8 * value))] for value in line[::step]), "cyan")
    if values.pixels.size:
        yield _picture(values)


def _picture(values: Values) -> Text:
    """The picture in half blocks: two pixels a character, one above the other."""
    step = -(-values.pixels.shape[1] // PICTURE_CHARACTERS)
    pixels = (255 * values.pixels[::step, ::step]).round().astype(int)
    text = Text()
    for top in range(0, len(pixels), 2):
        for column in range(pixels.shape[1]):
            colours = [_colour(pixels[row, column]) for row in range(top, min(top + 2, len(pixels)))]
            text.append(_UPPER_HALF, " on ".join(colours))
        text.append("\n")
    return text


def _colour(pixel: Any) -> str:
    red, green, blue = (int(pixel[channel % len(pixel)]) for channel in range(3))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _table(*columns: str, right: Sequence[str] = ("rows", "tokens", "shards")) -> Table:
    table = Table(show_edge=False, box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table
