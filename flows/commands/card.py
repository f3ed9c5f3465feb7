"""`foundation card`: the data card of a finished ingestion, made again from its folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows.datasets import find_dataset, take_dataset


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Which ingestion, and where a page goes."""
    take_dataset(parser)
    parser.add_argument("--page", type=Path, metavar="FILE.html", help="write the card as a page too")


def run(arguments: argparse.Namespace) -> int:
    """Print the card: laid out in a terminal, as Markdown elsewhere."""
    from foundation_core.files import committed
    from foundation_core.pages.card import data_card
    from foundation_core.pages.reading import open_corpus
    from foundation_core.store import load_result

    folder = open_corpus(find_dataset(arguments.dataset)).folder
    card = data_card(load_result(folder))
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(card.markdown))
    else:
        print(card.markdown, end="")
    if arguments.page:
        with committed(arguments.page) as sink:
            sink.write(card.page.encode())
        print(f"page  {arguments.page}", file=sys.stderr)
    return 0
