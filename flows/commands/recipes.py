"""`foundation recipes`: the recipes that are called by name, each with the first line of what it says of itself."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The form of the answer."""
    parser.add_argument("--json", action="store_true", help="for a script")


def run(arguments: argparse.Namespace) -> int:
    """Print a line a recipe."""
    from flows.recipes import find_recipe, recipe_folder, recipe_names

    found = {name: _about(find_recipe(name)) for name in recipe_names()}
    if arguments.json:
        print(json.dumps(found))
    elif not found:
        print(f"{recipe_folder()} has no recipe; FOUNDATION_RECIPES names another folder")
    else:
        print("\n".join(f"{name:<20} {about}" for name, about in found.items()))
    return 0


def _about(path: Path) -> str:
    first = next(iter(path.read_text(encoding="utf-8").splitlines()), "")
    return first.removeprefix("#").strip() if first.startswith("#") else ""
