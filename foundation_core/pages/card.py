"""The data card of an ingestion, in Markdown and as a page of its own that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from foundation_core.data.reading.decoding import UTF8
from foundation_core.files import committed
from foundation_core.identity import content_hash
from foundation_core.pages.charts import charts
from foundation_core.pages.making import limits, steps
from foundation_core.pages.reading import open_corpus
from foundation_core.pages.rendering import rendered
from foundation_core.pages.survey import Amounts, survey
from foundation_core.specs import IngestSpec
from foundation_core.store import Result

CARD_FOLDER, MARKDOWN_FILE, PAGE_FILE = "card", "data_card.md", "data_card.html"
_ROWS_SHOWN = 15


class Card(NamedTuple):
    """A data card in both its forms."""

    markdown: str
    page: str


def data_card(result: Result) -> Card:
    """The card of a committed ingestion, made again.

    Raises:
        DataError: a data set is missing or damaged.
    """
    spec = IngestSpec.model_validate(result.parts["spec"])
    return finished_card(result.folder, spec, result.summary, result.outputs)


def finished_card(folder: Path, spec: IngestSpec, summary: Mapping[str, Any], outputs: Mapping[str, str]) -> Card:
    """The card of an ingestion whose files are all there.

    Args:
        folder: where they are.
        summary: what the result will say.
        outputs: digests of the files on which later stages are keyed.

    Raises:
        DataError: a data set is missing or damaged.
    """
    corpus = open_corpus(folder)
    facts = survey(corpus, summary)
    values = {
        "name": folder.name,
        "summary": summary,
        "documents": summary["documents"],
        "repaired": _repaired(summary),
        "facts": facts,
        "sources": _rows(facts.sources),
        "groups": _rows(facts.groups),
        "more_groups": max(0, len(facts.groups) - _ROWS_SHOWN),
        "shape": ", ".join(f"{name} {size:,}" for name, size in summary.get("shape", {}).items() if size),
        "steps": steps(spec, summary),
        "limits": limits(spec),
        "contents": {
            "corpus content": content_hash(outputs),
            **{name: digest for name, digest in outputs.items() if "/" not in name},
            **{name: dataset.content for name, dataset in corpus.datasets().items()},
        },
    }
    return Card(rendered("card.md", **values), rendered("card.html", charts=charts(facts), **values))


def write_card(folder: Path, spec: IngestSpec, summary: Mapping[str, Any], outputs: Mapping[str, str]) -> list[Path]:
    """The files of the card, written beside the data sets of a result."""
    card = finished_card(folder, spec, summary, outputs)
    files = {MARKDOWN_FILE: card.markdown, PAGE_FILE: card.page}
    for name, text in files.items():
        with committed(folder / CARD_FOLDER / name) as sink:
            sink.write(text.encode())
    return [folder / CARD_FOLDER / name for name in files]


def _repaired(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How many texts were read in each encoding but UTF-8."""
    encodings = summary.get("encodings", {})
    return [{"name": name, "documents": count} for name, count in encodings.items() if name != UTF8]


def _rows(amounts: Amounts) -> list[dict[str, Any]]:
    """The largest of some amounts, each with its share of all."""
    total = sum(sum(of.values()) for of in amounts.values())
    return [
        {"name": name, "by_split": by_split, "amount": sum(by_split.values()),
         "fraction": sum(by_split.values()) / max(total, 1)}
        for name, by_split in list(amounts.items())[:_ROWS_SHOWN]
    ]  # fmt: skip
