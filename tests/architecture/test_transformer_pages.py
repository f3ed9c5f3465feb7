"""The pages on the transformer say what the experiments printed and quote what the source says, in both languages."""

from __future__ import annotations

import ast
import inspect
import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import pytest

from foundation_core.model.attention import attend

ROOT = Path(__file__).parents[2]
NUMBERS = ROOT / "docs" / "experiments.json"
PAGES = {name: ROOT / "docs" / name for name in ("transformer.md", "transformer.es.md")}
every_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)


_REMOVED = "heads/removed_head_by_head_then_all"
_DEPTH = "depth/nats_per_byte_after_training"
_EXACT, _RECALL = "translation/changes/{}/exact_fraction/mean", "recall/accuracy/{}/mean"
PROSE: Sequence[tuple[str, str | None]] = (
    ("54%", "heads/similarity_of_maps/decoder 1 reads"),
    ("62%", "heads/similarity_of_maps/decoder 2 reads"),
    ("100%", None),  # what two equal maps would have in common
    ("1%", None),  # the bound that is in the name of the key below
    ("11.8%", f"{_REMOVED}/decoder 1 reads/0/faulty_fraction"),
    ("0.05", f"{_REMOVED}/decoder 1 reads/0/added_nats"),
    ("88.2%", f"{_REMOVED}/decoder 1 reads/4/faulty_fraction"),
    ("98.8%", f"{_REMOVED}/decoder 2 reads/4/faulty_fraction"),
    ("133.4", "prefixes/times_as_long/256"),
    ("3.5", None),  # a section of the paper
    ("2.96", f"{_DEPTH}/variance 1 / inputs/pre"),
    ("3.21", f"{_DEPTH}/variance 1 / inputs/post"),
    ("3.12", f"{_DEPTH}/variance 1 / inputs/branch"),
    ("1.04", "depth/norms/the library's start/none/stream_growth"),
    ("2.69", f"{_DEPTH}/the library's start/none"),
    ("2.63", f"{_DEPTH}/the library's start/pre"),
    ("2.60", f"{_DEPTH}/the library's start/post"),
    ("3.01", f"{_DEPTH}/the library's start/branch"),
    ("5.4", None),  # another section
    ("99.97%", _EXACT.format("nothing is changed")),
    ("2.3%", _EXACT.format("words of a sentence in another order")),
    ("0.1%", _EXACT.format("vectors of other sentences")),
    ("100%", _RECALL.format("the whole row/17-32")),
    ("99.98%", "recall/accuracy/the whole row/1-16/lowest"),
    ("99.7%", _RECALL.format("a window of 32/1-16")),
    ("52.8%", _RECALL.format("a window of 32/33-48")),
    ("12.5%", "recall/chance"),
    ("13.0%", _RECALL.format("a window of 32/65-80")),
)
"""Every figure of the prose that has decimals or is a percent, in the order of the pages, and what was measured."""
COUNTS: Mapping[str, Sequence[tuple[str, str]]] = {  # others, found by the words around them, which differ by language
    "transformer.md": (
        (r"Of (\d+) heads, \d+ can be removed", "heads/heads"),
        (r"heads, (\d+) can be removed one", "heads/heads_whose_loss_costs_less_than_1_percent_of_translations"),
        (r"grows (\d+)-fold over", "depth/norms/variance 1 / inputs/none/stream_growth"),
        (r"more than 10\^(\d+) times", "depth/norms/variance 1 / inputs/none/gradient_first_over_last"),
        (r"-fold over (\d+) blocks", "depth/blocks"),
        (r"asked for (\d+) others", "translation/held_out_numbers"),
        (r"rows of (\d+) bytes", "length/trained_tokens"),
    ),
    "transformer.es.md": (
        (r"De (\d+) cabezas, \d+ pueden eliminarse", "heads/heads"),
        (r"cabezas, (\d+) pueden eliminarse de", "heads/heads_whose_loss_costs_less_than_1_percent_of_translations"),
        (r"flujo crece (\d+) veces", "depth/norms/variance 1 / inputs/none/stream_growth"),
        (r"más de 10\^(\d+)", "depth/norms/variance 1 / inputs/none/gradient_first_over_last"),
        (r"veces a lo largo de (\d+) bloques", "depth/blocks"),
        (r"preguntan otros (\d+)\.", "translation/held_out_numbers"),
        (r"filas de (\d+) bytes", "length/trained_tokens"),
    ),
}


def measured(key: str) -> float:
    """What stands under a key; its parts are told by slashes, and may hold some themselves."""
    value, rest = json.loads(NUMBERS.read_text()), key
    while rest:
        if isinstance(value, list):
            name, _, rest = rest.partition("/")
            value = value[int(name)]
            continue
        name = max((name for name in value if f"{rest}/".startswith(f"{name}/")), key=len)
        value, rest = value[name], rest[len(name) + 1 :]
    return float(value)


def says(text: str, value: float) -> bool:
    """Whether a figure is the measured value, rounded to as many digits as it has."""
    plain = text.rstrip("%")
    decimals = len(plain.partition(".")[2])
    return plain == f"{value * (100 if text.endswith('%') else 1):.{decimals}f}"


def figures_of(text: str) -> list[str]:
    """The figures of a text that have decimals or are percents, as `12.5%`. A number in code is none."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    found = re.findall(r"(?<![\d.,])(\d+(?:[.,]\d{1,2})?)(\s?%)|(?<![\d.,])(\d+[.,]\d{1,2})(?![\d.,]*\d)", prose)
    return [(percent or plain).replace(",", ".") + ("%" if sign else "") for percent, sign, plain in found]


def wrong_in_prose(text: str) -> list[str]:
    """Figures that stand elsewhere than the list says, or were measured otherwise; tables are not looked at."""
    found = figures_of("\n".join(line for line in text.splitlines() if not line.startswith("|")))
    known = [figure for figure, _ in PROSE]
    moved = [f"{here}, expected {there}" for here, there in zip_longest(found, known) if here != there]
    return moved or [f"{figure}: {key}" for figure, key in PROSE if key is not None and not says(figure, measured(key))]


def wrong_in_table(text: str) -> list[str]:
    """Cells of the table of lengths that are not what was measured for their row and their column."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    start = next(number for number, row in enumerate(rows) if row[1:] == ["1 x", "2 x", "4 x", "8 x"])
    kinds = json.loads(NUMBERS.read_text())["length"]["nats_per_byte"]
    table = rows[start + 2 : start + 2 + len(kinds)]
    if sorted(row[0] for row in table) != sorted(kinds):
        return [f"rows {[row[0] for row in table]}, expected one for each of {list(kinds)}"]
    return [
        f"{row[0]} at {times}: {cell}"
        for row in table
        for times, cell in zip(rows[start][1:], row[1:], strict=True)
        if not says(cell.replace(",", "."), kinds[row[0]][times.removesuffix(" x")]["mean"])
    ]


def wrong_counts(text: str, counts: Sequence[tuple[str, str]]) -> list[str]:
    """Whole numbers that are not what was measured, to as many digits as they show; of a power, the power."""
    text = re.sub(r"(?<=\d)[ ,](?=\d{3}\b)", "", text.replace("\n  ", " ").replace("\n", " "))
    wrong = []
    for pattern, key in counts:
        found, value = re.findall(pattern, text), measured(key)
        said = f"{math.floor(math.log10(value))}" if "\\^" in pattern else f"{float(f'{value:.1g}'):.0f}"
        exact = f"{value:.0f}"
        if len(found) != 1 or found[0] not in {said, exact}:
            wrong.append(f"{pattern}: {found}, expected {exact} or {said}")
    return wrong


@every_page
def test_every_figure_of_a_page_is_what_was_measured_for_what_it_is_said_of(page: Path) -> None:
    text = page.read_text()
    assert wrong_in_prose(text) == []
    assert wrong_in_table(text) == []
    assert wrong_counts(text, COUNTS[page.name]) == []


def exchanged(text: str, one: str, other: str) -> str:
    assert text.count(one) == text.count(other) == 1
    return text.replace(one, "\0").replace(other, one).replace("\0", other)


@every_page
def test_figures_of_another_row_another_sentence_or_nobody_are_noticed(page: Path) -> None:
    text = page.read_text()
    lines = text.splitlines()
    rotary, alibi = (next(line for line in lines if line.startswith(f"| {kind} |")) for kind in ("rotary", "alibi"))
    figures = exchanged(text, rotary.removeprefix("| rotary"), alibi.removeprefix("| alibi"))
    assert len(wrong_in_table(figures)) == 4 + 4, "the figures of two rows were exchanged"
    assert len(wrong_in_table(exchanged(text, "| rotary |", "| alibi |"))) == 4 + 4, "their names were"
    assert wrong_in_table(exchanged(text, rotary, alibi)) == [], "control: the order of whole rows says nothing"
    comma = "," if page.name.endswith(".es.md") else "."
    assert wrong_in_prose(exchanged(text, f"88{comma}2", f"98{comma}8"))
    assert wrong_in_prose(text + f"\n7{comma}77\n")
    assert wrong_counts(text.replace("10^8", "10^9"), COUNTS[page.name])
    assert wrong_counts(text.replace("24", "23", 1), COUNTS[page.name])


@every_page
def test_every_line_of_python_on_a_page_stands_in_the_source(page: Path) -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "foundation_core" / "model").glob("*.py"))
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert [line for line in lines if f"\n{line}\n" not in source] == []
    definition = ast.parse(inspect.getsource(attend)).body[0]
    assert isinstance(definition, ast.FunctionDef)
    statements = [f"    {ast.get_source_segment(inspect.getsource(attend), one)}" for one in definition.body[1:]]
    assert len(statements) == 5, "the pages, the issue and the module's docstring say five"
    assert "\n".join(statements) in "\n".join(lines)


@every_page
def test_every_name_in_code_on_a_page_is_one_of_the_source(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    names = set(re.findall(r"`([A-Za-z_]\w+)`", prose))
    source = "\n".join(
        path.read_text() for folder in ("foundation_core", "experiments") for path in (ROOT / folder).rglob("*.py")
    )
    known = set(re.findall(r"[A-Za-z_]\w+", source))
    assert len(names) > 20
    assert names - known == set()


def test_both_pages_show_the_same_pictures_and_figures() -> None:
    english, spanish = (page.read_text() for page in PAGES.values())
    pictures = [re.findall(r"\]\((images/[^)]+)\)", text) for text in (english, spanish)]
    assert pictures[0] == pictures[1]
    assert sorted(figures_of(english)) == sorted(figures_of(spanish))
