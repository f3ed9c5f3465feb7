"""`foundation plan` and `foundation why`: what a recipe would do, because of what, and what that takes."""

from __future__ import annotations

import argparse

from flows.recipes import find_recipe, take_recipe


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """A recipe and any of its fields."""
    take_recipe(parser)
    parser.add_argument("--json", action="store_true", help="for a script")


def run(arguments: argparse.Namespace) -> int:
    """Print a line a stage, and for `plan` what the run as a whole takes; nothing is started."""
    from cluster.planning import source_content_of
    from cluster.preflight import checked_plan, preflight
    from cluster.settings import Settings
    from flows.planned import fact_rows, plan_json, stage_rows
    from foundation_core.recipe import load_recipe

    recipe, settings = load_recipe(find_recipe(arguments.recipe), arguments.overrides), Settings.from_environment()
    preflight(recipe, settings)
    steps, found = checked_plan(recipe, settings, source_content_of(recipe), recipe.last)
    if arguments.json:
        print(plan_json(steps, found))
        return 0
    for row in stage_rows(steps, found):
        print(f"{row['stage']:<9} {row['what']:<6} {row['time']:>10}   {row['why']}")
    if arguments.command == "plan":
        print()
        for name, value in fact_rows(recipe, found):
            print(f"{name:<18} {value}")
    return 0
