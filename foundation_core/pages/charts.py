"""The plots of a data card, as SVG whose colours are the names of a page's: it can be light or dark.

Letters stay letters, in the font of the page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from foundation_core.data.split import SPLITS
from foundation_core.evaluate.style import BLUE, GREEN, GREY, GRID, INK, ORANGE, STYLE
from foundation_core.pages.survey import Amounts, Histogram, Loss, Survey

_PAPER = "#ffffff"
_NAMES = {
    INK: "ink", GREY: "quiet", GRID: "line", BLUE: "blue", ORANGE: "orange", GREEN: "green", _PAPER: "card",
}  # fmt: skip
_COLOURS = (BLUE, ORANGE, GREEN)
_RULES_SHOWN, _GROUPS_SHOWN, _NAME_CHARACTERS = 10, 12, 26
_TICKS = 6


def charts(facts: Survey) -> dict[str, str]:
    """SVG by name: losses, bytes, tokens, groups; those for which there is something; none without matplotlib."""
    if find_spec("matplotlib") is None:
        return {}
    drawn = {"losses": _waterfall(facts.losses, facts.summary["documents"]["in"])} if facts.losses else {}
    drawn |= {unit: _lengths(histogram, unit) for unit, histogram in facts.lengths.items()}
    if len(facts.groups) > 1:
        drawn["groups"] = _groups(facts.groups, facts.unit)
    return drawn


def _waterfall(losses: Sequence[Loss], documents_in: int) -> str:
    """What is left behind each loss; the axis is cut where little is lost."""
    shown = losses[:_RULES_SHOWN]
    if rest := losses[_RULES_SHOWN:]:
        shown = (*shown, Loss(f"{len(rest)} more rules", sum(loss.documents for loss in rest), rest[-1].left))
    kept = shown[-1].left
    begin = 0 if kept < documents_in / 2 else kept - 0.3 * (documents_in - kept)
    with _axes(1.1 + 0.36 * (len(shown) + 2)) as (axes, drawn):
        names = ["in", *(_short(loss.rule) for loss in shown), "kept"]
        axes.barh(0, documents_in, color=GREY)
        for place, loss in enumerate(shown, 1):
            axes.barh(place, loss.documents, left=loss.left, color=ORANGE)
            axes.vlines(loss.left, place - 0.4, place + 1.4, color=GREY, linewidth=0.8)
            at = (loss.left, place)
            axes.annotate(
                f"−{loss.documents:,} ", at, xytext=(-3, 0), textcoords="offset points", ha="right", va="center"
            )
        axes.barh(len(shown) + 1, kept, color=BLUE)
        for place, count in ((0, documents_in), (len(shown) + 1, kept)):
            axes.annotate(
                f"{count:,} ", (count, place), xytext=(-3, 0), textcoords="offset points", ha="right", va="center",
                color=_PAPER,
            )  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(left=max(0, begin - 0.2 * (documents_in - begin)), right=documents_in)
        axes.invert_yaxis()
        axes.set_xlabel("documents (the axis is cut)" if begin else "documents")
        _plain(axes, "y")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_major_locator(_few_ticks())
    return drawn[0]


def _lengths(histogram: Histogram, unit: str) -> str:
    """How long documents are, on a scale on which each bin is as much longer than the one before."""
    with _axes(3.0) as (axes, drawn):
        axes.stairs(histogram.counts, histogram.edges, fill=True, color=BLUE)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(_few_ticks(logarithmic=True))
        axes.xaxis.set_major_formatter(lambda size, _: _round(size))
        axes.minorticks_off()
        axes.set(xlabel=f"{unit} of a document", ylabel="documents")
        axes.yaxis.set_major_locator(_few_ticks())
        _plain(axes, "x")
    return drawn[0]


def _groups(groups: Amounts, unit: str) -> str:
    """An amount by group and split, the rest of the groups together."""
    shown = dict(list(groups.items())[:_GROUPS_SHOWN])
    rest = list(groups.values())[_GROUPS_SHOWN:]
    if rest:
        name = f"{len(rest)} more"
        shown[name] = {split: sum(of.get(split, 0) for of in rest) for split in SPLITS}
    with _axes(1.3 + 0.3 * len(shown)) as (axes, drawn):
        begin = [0.0] * len(shown)
        for split, colour in zip(SPLITS, _COLOURS, strict=True):
            widths = [of.get(split, 0) for of in shown.values()]
            axes.barh(range(len(shown)), widths, left=begin, color=colour, label=split)
            begin = [one + width for one, width in zip(begin, widths, strict=True)]
        axes.set_yticks(range(len(shown)), [_short(name or "(no group)") for name in shown])
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.xaxis.set_major_locator(_few_ticks())
        axes.xaxis.set_major_formatter(lambda size, _: _round(size, 1000))
        axes.legend(loc="lower right")
        _plain(axes, "y")
    return drawn[0]


def _short(name: str) -> str:
    text = name.replace("$", r"\$")  # or it begins a formula
    return text if len(text) <= _NAME_CHARACTERS else f"{text[: _NAME_CHARACTERS - 1]}…"


def _round(size: float, step: int = 1024) -> str:
    for letter in ("", "k", "M", "G"):
        if size < step or letter == "G":
            break
        size /= step
    return f"{size:.3g}{letter}"


def _few_ticks(*, logarithmic: bool = False) -> Any:
    from matplotlib.ticker import LogLocator, MaxNLocator

    return LogLocator(base=2, numticks=_TICKS) if logarithmic else MaxNLocator(_TICKS - 1, integer=True)


def _plain(axes: Any, side: str) -> None:
    axes.grid(visible=False, axis=side)
    axes.tick_params(axis=side, length=0)


@contextmanager
def _axes(height: float) -> Iterator[tuple[Any, list[str]]]:
    """Axes in the common style, and a list that holds their SVG when the block has ended.

    Args:
        height: in inches; the width is that of half a page, so that letters are as large as those beside them.
    """
    import matplotlib
    from matplotlib.figure import Figure

    drawn = list[str]()
    with matplotlib.rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": "card", "font.size": 10}):
        figure = Figure(figsize=(5.4, height), layout="constrained")
        yield figure.subplots(), drawn
        sink = io.StringIO()
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    svg = sink.getvalue()
    for colour, name in _NAMES.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r'font-family: [^;"]*', "font-family: inherit", svg)
    drawn.append(re.sub(r"(?s)^.*?<svg|<metadata>.*</metadata>", lambda found: "<svg" * ("<svg" in found[0]), svg))
