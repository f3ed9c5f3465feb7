"""The pages on the transformer say what the experiments printed and quote what the source says, in both languages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NUMBERS = ROOT / "docs" / "experiments.json"
PAGES = {name: ROOT / "docs" / name for name in ("transformer.md", "transformer.es.md")}
every_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)


def figures_of(text: str) -> list[tuple[str, int, bool]]:
    """The figures of a text that an experiment must have printed: digits, decimals, and whether they are percents.

    Those are all that have decimals and all percents. A number in code is none.
    """
    prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    found = re.findall(r"(?<![\d.,])(\d+(?:[.,]\d{1,2})?)(\s?%)|(?<![\d.,])(\d+[.,]\d{1,2})(?![\d.,]*\d)", prose)
    figures = [((percent or plain).replace(",", "."), bool(sign)) for percent, sign, plain in found]
    return [(figure, len(figure.partition(".")[2]), sign) for figure, sign in figures]


def printed(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from printed(part)
    elif isinstance(value, (int, float)):
        yield float(value)


def not_printed(text: str) -> set[str]:
    values = set(printed(json.loads(NUMBERS.read_text())))
    return {
        figure
        for figure, decimals, percent in figures_of(text)
        if figure not in {f"{value * (100 if percent else 1):.{decimals}f}" for value in values}
    }


@every_page
def test_every_figure_of_a_page_was_printed_by_an_experiment(page: Path) -> None:
    assert len(figures_of(page.read_text())) > 15
    assert not_printed(page.read_text()) == set()


def test_a_figure_that_nobody_printed_is_noticed() -> None:
    assert not_printed("It reached 87.13% and 7,77 of `1.23` in 20,000.") == {"87.13", "7.77"}


@every_page
def test_every_line_of_python_on_a_page_stands_in_the_source(page: Path) -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "foundation_core" / "model").glob("*.py"))
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) > 8
    assert [line for line in lines if f"\n{line}\n" not in source] == []


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
