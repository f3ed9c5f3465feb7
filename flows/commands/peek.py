"""`foundation peek`: documents of a data set, how they are cut and packed, where they are, and what is lost nearby."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from flows.arguments import at_least
from flows.datasets import find_dataset, take_dataset
from foundation_core.specs.loading import Packing


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Which data set, which documents, and how they are shown."""
    take_dataset(parser)
    parser.add_argument("--document", metavar="ID", help="one document: its shards and rows, or why it was lost")
    parser.add_argument("--count", type=at_least(1, int), default=3, help="documents to draw, if none is named (3)")
    parser.add_argument("--seed", type=at_least(0, int), default=0, help="another seed draws others (0)")
    parser.add_argument("--context", type=at_least(1, int), default=128, help="tokens of a packed row (128)")
    parser.add_argument("--packing", choices=get_args(Packing), default="cut", help="how rows are packed (cut)")
    parser.add_argument("--ids", action="store_true", help="show the id behind each token")
    parser.add_argument("--page", type=Path, metavar="FILE.html", help="write a page instead of printing")


def run(arguments: argparse.Namespace) -> int:
    """Print what there is to see, or write it as a page."""
    from foundation_core.pages.peek import Wanted, peek
    from foundation_core.pages.reading import open_corpus

    corpus = open_corpus(find_dataset(arguments.dataset))
    wanted = Wanted(arguments.document, arguments.count, arguments.seed, arguments.context, arguments.packing)
    look = peek(corpus, wanted)
    if arguments.page is None:
        from rich.console import Console

        from flows.peek_screen import screen

        Console(highlight=False).print(screen(look, ids=arguments.ids))
        return 0
    from foundation_core.files import committed
    from foundation_core.pages.peek_page import peek_page

    with committed(arguments.page) as sink:
        sink.write(peek_page(look, ids=arguments.ids).encode())
    print(f"page  {arguments.page}", file=sys.stderr)
    return 0
