"""`foundation run`, and one command for each stage: a recipe through the flow of that name."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flows.recipes import find_recipe, take_recipe
from foundation_core.errors import FoundationError, TransientError

if TYPE_CHECKING:
    from cluster.settings import Settings


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """A recipe and any of its fields."""
    take_recipe(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do what is not done yet, and print the table of what there is."""
    from cluster.planning import plan, source_content_of
    from cluster.preflight import checked_plan, preflight, preflight_cluster
    from cluster.settings import Settings
    from cluster.stack import Stack
    from flows.summary import print_summary
    from foundation_core.recipe import load_recipe
    from foundation_core.store import Store

    flow_name = "pipeline" if arguments.command == "run" else arguments.command
    os.environ.update(Stack(Settings.from_environment()).environment())
    recipe, settings = load_recipe(find_recipe(arguments.recipe), arguments.overrides), Settings.from_environment()
    preflight(recipe, settings)
    content = source_content_of(recipe, settings.results)
    last = recipe.last if flow_name == "pipeline" else flow_name
    steps, _ = checked_plan(recipe, settings, content, last)
    done = all(step.result is not None and step.result.ids for step in steps)
    if not done:
        preflight_cluster(recipe, settings, steps)
        run_flow(f"flows.pipeline:{flow_name}", (recipe, content), settings, starts_with_ingest=steps[0].result is None)
        steps = plan(recipe, Store(settings.results), content)[: len(steps)]
    print_summary([step.result for step in steps if step.result], settings, nothing_done=done)
    gc.freeze()  # or Python looks through every module for garbage before it leaves, for a second
    return 0


def run_flow(flow: str, parameters: Sequence[Any], settings: Settings, *, starts_with_ingest: bool) -> None:
    """Run a flow, named as `module:function`, against a Prefect API of its own or the one that PREFECT_API_URL names.

    Raises:
        FoundationError: what the flow raised.
        TransientError: Prefect stayed away when the run was to begin or to end.
    """
    from httpx import HTTPError

    from cluster.embedded import PrefectApi, answers
    from cluster.launch import get_ready
    from cluster.stop import interrupt_on_signals
    from flows.console import Console, use_console

    interrupt_on_signals()
    api = None if os.environ.get("PREFECT_API_URL") else PrefectApi(settings)
    console = Console()
    try:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # the console speaks; errors reach main()
        if api is not None:
            os.environ.update({**api.environment, "PREFECT_API_URL": api.url})
        if starts_with_ingest:
            get_ready(settings, "ingest")
        module, _, name = flow.partition(":")
        run_it = getattr(importlib.import_module(module), name)  # before the wait: both take a second or two
        if api is not None:
            api.wait()
        use_console(console)
        run_it(*parameters)
    except FoundationError:
        raise
    except Exception as error:
        url = os.environ["PREFECT_API_URL"]
        if isinstance(error, HTTPError) or not answers(f"{url}/health"):  # Prefect raises what it likes
            fix = "see that it runs, then run the same command again: what is done is found"
            raise TransientError(f"Prefect at {url} does not answer", fix=fix) from error
        raise
    finally:
        console.close()
        if api is not None:
            api.end()
