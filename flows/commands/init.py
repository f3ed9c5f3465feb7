"""`foundation init`: a recipe for a person's own texts, with sizes that fit them."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from foundation_core.errors import ConfigError

if TYPE_CHECKING:
    from foundation_core.specs import SourceSpec

RECIPE_FILE = "recipe.yaml"
LABELS = ("first-folder", "none")


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Where the texts are and what they are called; what is not said is asked for, on a terminal."""
    parser.add_argument("folder", type=Path, help=f"gets {RECIPE_FILE}")
    parser.add_argument("--texts", help="a folder of texts, or a table: .csv, .jsonl (also .gz) or .parquet")
    parser.add_argument("--pattern", default="**/*.txt", help="which files of the folder (**/*.txt)")
    parser.add_argument(
        "--labels", choices=LABELS, default="first-folder", help="what a file's class is (first-folder)"
    )
    parser.add_argument("--text-field", default="text", help="a table's column of texts (text)")
    parser.add_argument("--label-field", help="a table's column of labels; without it there are none")
    parser.add_argument("--name", help="names the run and the model (the folder's name)")
    parser.add_argument("--force", action="store_true", help="replace a recipe that is there")


def run(arguments: argparse.Namespace) -> int:
    """Look at the texts, write the recipe, and say what to do next."""
    import yaml

    from cluster.preflight import preflight
    from cluster.settings import Settings, usable_cpus
    from foundation_core.files import committed
    from foundation_core.recipe import load_recipe, parse_recipe
    from foundation_core.starter import recipe_text, survey

    path = arguments.folder / RECIPE_FILE
    if path.exists() and not arguments.force:
        raise ConfigError(f"{path} is there already", fix="name another folder, or say --force to replace it")
    source = _source(arguments)
    labelled = bool(source.label_field) if source.kind == "table" else arguments.labels == "first-folder"
    name = arguments.name or re.sub(r"[^a-z0-9]+", "-", arguments.folder.absolute().name.lower()).strip("-") or "texts"
    found = survey(source)
    text = recipe_text(found, name, min(2, usable_cpus()), labelled=labelled)
    preflight(parse_recipe(yaml.safe_load(text)), Settings.from_environment())
    with committed(path) as sink:
        sink.write(text.encode())
    recipe = load_recipe(path)
    size = f"{found.documents:,} documents, {found.text_bytes / 1e6:.2f} MB, {len(found.groups)} groups"
    print(f"found     {size}; about {found.tokens('train'):,} tokens to train on")
    if recipe.last == "publish" and recipe.finetune.task == "continue_text":
        print("labels    none that can be classes: the task is to go on with a text")
    elif recipe.last == "publish":
        print(f"labels    {recipe.finetune.classes} groups become classes")
    else:
        print("labels    none that fine-tuning can use: the run ends with the trunk (the recipe says why)")
    print(f"written   {path}")
    print(f"next      foundation run {path}")
    return 0


def _source(arguments: argparse.Namespace) -> SourceSpec:
    """The source that the person means.

    Raises:
        ConfigError: it was not said, and there is nobody to ask.
    """
    from foundation_core.specs import SourceSpec

    texts = arguments.texts
    if texts is None and not sys.stdin.isatty():
        raise ConfigError("nobody said where the texts are", fix="say --texts FOLDER, or --texts TABLE")
    where = Path(texts or input("folder of texts, or table: ").strip()).expanduser().absolute()
    if where.is_file():
        return SourceSpec(
            kind="table", path=str(where), text_field=arguments.text_field, label_field=arguments.label_field
        )
    pattern = arguments.pattern
    if texts is None:
        pattern = input(f"which files of it [{pattern}]: ").strip() or pattern
    return SourceSpec(kind="folder", path=str(where), pattern=pattern)
