"""A whole recipe as one job, without Prefect: `python -m cluster.job RECIPE.yaml [--dotted.field value ...]`.

    ray job submit --address ... --working-dir . -- python -m cluster.job recipes/quickstart.yaml

It is the same Session as a flow's: the stages, their keys, leases and MLflow runs do not differ. Inside a Ray job the
stages' own jobs go to the cluster that it runs on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.lines import lines_of_this_run
from cluster.planning import INPUTS, ROLES, source_content_of
from cluster.preflight import checked_plan, preflight, preflight_cluster
from cluster.ray_jobs import surrounding_cluster
from cluster.session import Session
from cluster.settings import Settings
from cluster.stop import RequeueInterrupt, interrupt_on_signals
from foundation_core.errors import FoundationError, Requeued, Stopped
from foundation_core.recipe import load_recipe, parse_overrides
from foundation_core.store import Result


def run_recipe(recipe: str, words: Sequence[str]) -> int:
    """Run all stages of a recipe in order; the exit status, as of `foundation run`.

    Args:
        words: `--dotted.field value`, any number of them.
    """
    interrupt_on_signals()
    try:
        _run(Path(recipe), words)
    except FoundationError as error:
        print(f"foundation: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as asked:
        print("foundation: stopped; run the same recipe again and it continues", file=sys.stderr)
        return (Requeued if isinstance(asked, RequeueInterrupt) else Stopped).exit_code
    return 0


def _run(path: Path, words: Sequence[str]) -> None:
    recipe = load_recipe(path, parse_overrides(words))
    if not os.environ.get("FOUNDATION_RAY_ADDRESS"):
        os.environ["FOUNDATION_RAY_ADDRESS"] = surrounding_cluster()
    settings = Settings.from_environment()
    preflight(recipe, settings)
    content = source_content_of(recipe, settings.results)
    steps, _ = checked_plan(recipe, settings, content, recipe.last)
    preflight_cluster(recipe, settings, steps)
    results: dict[str, Result] = {}
    with Session(recipe, settings, content, lines_of_this_run().report, recipe.last) as session:
        for stage, roles in INPUTS.items():
            results[ROLES[stage]] = session.run(stage, {role: results[role] for role in roles})
            if stage == recipe.last:
                break
    for result in results.values():
        print(f"{result.stage:<9} {result.folder}", flush=True)
