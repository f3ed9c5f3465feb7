"""Templates to text: figures in the form that people read, and whatever a corpus holds as harmless text."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from foundation_core.pages.survey import Histogram

_TEMPLATES = Path(__file__).with_name("templates")
_BLOCKS = " ▁▂▃▄▅▆▇█"
_BAR_CHARACTERS = 20
_RUN = re.compile(r" {4,}")
_UNSEEN = {**{number: chr(0x2400 + number) for number in {*range(32)} - {9, 10}}, **dict.fromkeys(range(127, 160), "␡")}
"""The picture of each character that a terminal would obey, but for tabs and ends of lines."""
_MARKS = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})


def rendered(template: str, **values: Any) -> str:
    """The text of a template; what it is given is escaped where the template is a page."""
    environment = _environment()
    if template.endswith(".html"):
        values["css"] = Markup((_TEMPLATES / "page.css").read_text())
    return environment.get_template(template).render(values)


def amount(number: float) -> str:
    """A number in three digits and a letter: 3.29 M."""
    for letter in ("", " k", " M", " G", " T"):
        if abs(number) < 999.5 or letter == " T":
            break
        number /= 1000
    return f"{number:.3g}{letter}"


def percent(fraction: float) -> str:
    """A fraction as a percentage; what is there but very little is no zero."""
    if 0 < fraction < 0.0005:
        return "< 0.1%"
    return f"{fraction:.0%}" if fraction in (0, 1) else f"{fraction:.1%}"


def visible(text: str) -> str:
    """A token with its spaces and ends of lines as signs, long runs of spaces as their number."""
    return _RUN.sub(lambda run: f"␣×{len(run[0])}", harmless(text)).translate(_MARKS)


def harmless(text: str) -> str:
    """A text whose control characters are pictures of themselves."""
    return text.translate(_UNSEEN)


def ends(text: str) -> str:
    """A token with the ends of its lines as signs beside them."""
    return harmless(text).replace("\n", "⏎\n")


def figure(value: float | None) -> str:
    """A measured value in four digits."""
    return "" if value is None else f"{value:,.0f}" if value == int(value) else f"{value:.4g}"


def blocks(histogram: Histogram | None) -> str:
    """A histogram as a row of blocks."""
    if histogram is None or not any(histogram.counts):
        return ""
    most = max(histogram.counts)
    return "".join(_BLOCKS[-(-8 * count // most)] for count in histogram.counts)


def _spelt(text: str) -> Markup:
    """A sentence of Markdown on a page: what stands in backticks is code."""
    parts = harmless(text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts)
    )


def _bar(fraction: float) -> str:
    return "█" * round(_BAR_CHARACTERS * fraction)


def _cell(text: str) -> str:
    """Text that cannot end a cell of a Markdown table, or become HTML in it."""
    return _line(text).replace("<", "&lt;")


def _code(text: str) -> str:
    """Text as code in a cell."""
    return f"`{_line(text)}`"


def _line(text: str) -> str:
    return harmless(" ".join(text.split())).replace("|", "\\|").replace("`", "'")


def _block(text: str) -> str:
    """Text as indented code, which nothing in it can end."""
    return "\n".join(f"    {line}" for line in harmless(text).strip("\n").split("\n"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "amount": amount, "percent": percent, "visible": visible, "ends": ends, "harmless": harmless, "figure": figure,
        "blocks": blocks, "bar": _bar, "spelt": _spelt, "cell": _cell, "code": _code, "block": _block,
        "thousands": lambda number: f"{number:,}", "size": lambda size: f"{amount(size)}B",
    }  # fmt: skip
    return environment
