"""`foundation why`: for each stage of a recipe, whether it is found or what differs from the nearest earlier one."""

from __future__ import annotations

import argparse

from flows.recipes import find_recipe, take_recipe


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """A recipe and any of its fields."""
    take_recipe(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a line a stage."""
    from cluster.planning import INPUTS, plan, source_content_of
    from cluster.settings import Settings
    from foundation_core.recipe import load_recipe
    from foundation_core.store import Store

    recipe, settings = load_recipe(find_recipe(arguments.recipe), arguments.overrides), Settings.from_environment()
    count = list(INPUTS).index(recipe.last) + 1
    for step in plan(recipe, Store(settings.results), source_content_of(recipe))[:count]:
        if step.result is not None:
            print(f"{step.stage:<9} reuse  {step.result.folder}")
        else:
            print(f"{step.stage:<9} run    {'; '.join(step.reasons)}")
    return 0
