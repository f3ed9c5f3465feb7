"""`foundation sweep`: a recipe once for each value of one field, and which is best."""

from __future__ import annotations

import argparse
import gc
import os

from flows.commands.stages import run_flow
from flows.recipes import find_recipe, take_recipe
from foundation_core.errors import FoundationError

LEARNING_RATE = "pretrain.optimizer.lr"


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """A recipe, the field and its values, and any other fields."""
    from cluster.sweep import LAST_STAGES

    take_recipe(parser)
    parser.usage = f"{parser.prog} RECIPE [--over FIELD] --values V V ... [--last STAGE] [--dotted.field VALUE ...]"
    parser.add_argument("--over", default=LEARNING_RATE, help=f"the field that varies, {LEARNING_RATE} if not said")
    parser.add_argument("--values", nargs="+", required=True, help="what it shall be, one run each")
    parser.add_argument("--last", default="pretrain", choices=LAST_STAGES, help="the last stage, pretrain if not said")


def run(arguments: argparse.Namespace) -> int:
    """Do the points that are not done yet, and print the table of all of them."""
    from cluster.settings import Settings
    from cluster.stack import Stack
    from cluster.sweep import plan_sweep
    from flows.summary import print_sweep
    from foundation_core.recipe import load_recipe

    os.environ.update(Stack(Settings.from_environment()).environment())
    recipe, settings = load_recipe(find_recipe(arguments.recipe), arguments.overrides), Settings.from_environment()
    sweep = plan_sweep(recipe, arguments.over, arguments.values, arguments.last, settings)
    done, failure = sweep.is_done(settings), None
    if not done:
        starts_with_ingest = any(point.steps(settings, "ingest")[0].result is None for point in sweep.points)
        parameters = (recipe, arguments.over, arguments.values, arguments.last)
        try:
            run_flow("flows.sweep:sweep", parameters, settings, starts_with_ingest=starts_with_ingest)
        except FoundationError as error:
            failure = error
            if not sweep.outcomes(settings):  # it did not come to its end: there is no table
                raise
    fields = [word for name, value in arguments.overrides if name != arguments.over for word in (f"--{name}", value)]
    print_sweep(sweep, sweep.outcomes(settings), [arguments.recipe, *fields], nothing_done=done)
    gc.freeze()  # or Python looks through every module for garbage before it leaves, for a second
    if failure is not None:
        raise failure
    return 0
