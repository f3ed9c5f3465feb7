"""`foundation plan` and `foundation why`: what a recipe would do, because of what, and what that takes."""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.recipes import find_recipe, take_recipe


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """A recipe and any of its fields; of `plan`, the cluster that it is planned for."""
    take_recipe(parser)
    if name == "plan":
        parser.add_argument(
            "--cluster",
            type=Path,
            metavar="FILE",
            help="what pretraining takes on the cluster that a file describes, by arithmetic; infra/clusters has some",
        )
    parser.add_argument("--json", action="store_true", help="for a script")


def run(arguments: argparse.Namespace) -> int:
    """Print a line a stage, and for `plan` what the run as a whole takes; nothing is started."""
    from cluster.planning import source_content_of
    from cluster.preflight import checked_plan, preflight
    from cluster.settings import Settings
    from flows.planned import fact_rows, plan_json, stage_rows
    from foundation_core.recipe import load_recipe

    if getattr(arguments, "cluster", None) is not None:
        return _project(arguments)
    recipe, settings = load_recipe(find_recipe(arguments.recipe), arguments.overrides), Settings.from_environment()
    preflight(recipe, settings)
    steps, found = checked_plan(recipe, settings, source_content_of(recipe, settings.results), recipe.last)
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


def _project(arguments: argparse.Namespace) -> int:
    """Print what the recipe's pretraining takes on a described cluster, for every way to train there.

    Raises:
        ConfigError: recipe and cluster do not go together.
        SetupError: the way that the recipe asks for does not fit, or none does.
    """
    from cluster.cluster_file import load_cluster
    from cluster.preflight import check_recipe
    from cluster.projection import Training, check_asked, choices, recommended
    from flows.projected import choice_lines, projection_json
    from flows.projected import fact_rows as projected_rows
    from foundation_core.recipe import load_recipe

    recipe, cluster = load_recipe(find_recipe(arguments.recipe), arguments.overrides), load_cluster(arguments.cluster)
    check_recipe(recipe)
    training = Training.of_recipe(recipe)
    found = choices(training, cluster)
    best = recommended(found, training, cluster)
    if arguments.json:
        print(projection_json(found, best, cluster))
    else:
        print("\n".join(choice_lines(found, best)))
        print()
        for name, value in projected_rows(training, cluster, best):
            print(f"{name:<18} {value}")
    check_asked(found, best, training, cluster)
    return 0
