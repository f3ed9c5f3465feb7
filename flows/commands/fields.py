"""`foundation fields`: every field of a recipe, from the docstrings of the specs."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Which fields."""
    parser.add_argument("beginning", nargs="?", default="", help="only names that begin so: pretrain.model")


def run(arguments: argparse.Namespace) -> int:
    """Print name, default and meaning of each."""
    from foundation_core.specs import PipelineSpec, described_leaves

    for name, default, text in described_leaves(PipelineSpec):
        if name.startswith(arguments.beginning):
            print(f"--{name} {default}\n      {text}")
    return 0
