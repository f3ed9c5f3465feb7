"""The recipes that people choose from by name, and the fields that they set beside one."""

from __future__ import annotations

import argparse
from pathlib import Path

from cluster.settings import Settings
from foundation_core.errors import ConfigError

SUFFIX = ".yaml"


def recipe_folder() -> Path:
    """Where recipes are looked for."""
    return Settings.from_environment().recipes


def recipe_names() -> list[str]:
    """The recipes there are, in alphabetical order."""
    return sorted(path.name.removesuffix(SUFFIX) for path in recipe_folder().glob(f"*{SUFFIX}"))


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path as it is, a bare name in the folder of recipes.

    Raises:
        ConfigError: there is none of that name.
    """
    path = Path(name)
    if path.suffix or len(path.parts) > 1:
        return path
    if name not in recipe_names():
        raise ConfigError(
            f"no recipe is called {name!r}",
            allowed=", ".join(recipe_names()) or f"none: {recipe_folder()} has no {SUFFIX} file",
            fix="choose one of these, or give the path of a file",
        )
    return recipe_folder() / f"{name}{SUFFIX}"


def take_recipe(parser: argparse.ArgumentParser) -> None:
    """Let a command take a recipe, and any of its fields behind it; its help shows those of a stage of its name."""
    from foundation_core.specs import PipelineSpec, described_leaves

    command = parser.prog.rpartition(" ")[2]
    parser.add_argument("recipe", help="a YAML file, or the name of one in recipes/")
    parser.set_defaults(overrides=[])
    parser.usage = f"{parser.prog} RECIPE [--dotted.field VALUE ...]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    fields = [field for field in described_leaves(PipelineSpec) if field[0].startswith(f"{command}.")]
    lines = [f"  --{name} {default}\n      {text}" for name, default, text in fields]
    parser.epilog = "\n".join(["fields:", *lines] if lines else ["`foundation fields` lists every field of a recipe."])
