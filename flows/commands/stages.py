"""`foundation run`, and one command for each stage: a recipe through the flow of that name."""

from __future__ import annotations

import argparse
import gc
import os
import signal
from typing import Any

from flows.recipes import find_recipe, take_recipe
from foundation_core.errors import FoundationError, TransientError


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """A recipe and any of its fields."""
    take_recipe(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do what is not done yet, and print the table of what there is."""
    from cluster.planning import INPUTS, plan, source_content_of
    from cluster.preflight import preflight, preflight_cluster
    from cluster.settings import Settings
    from cluster.stack import Stack
    from flows.summary import print_summary
    from foundation_core.recipe import load_recipe
    from foundation_core.store import Store

    flow_name = "pipeline" if arguments.command == "run" else arguments.command
    os.environ.update(Stack(Settings.from_environment()).environment())
    recipe, settings = load_recipe(find_recipe(arguments.recipe), arguments.overrides), Settings.from_environment()
    preflight(recipe, settings)
    content = source_content_of(recipe)
    stages = list(INPUTS) if flow_name == "pipeline" else list(INPUTS)[: list(INPUTS).index(flow_name) + 1]
    steps = plan(recipe, Store(settings.results), content)[: len(stages)]
    done = all(step.result is not None and step.result.ids for step in steps)
    if not done:
        preflight_cluster(recipe, settings, steps)
        _run_flow(flow_name, recipe, content, settings, starts_with_ingest=steps[0].result is None)
        steps = plan(recipe, Store(settings.results), content)[: len(stages)]
    print_summary([step.result for step in steps if step.result], settings, nothing_done=done)
    gc.freeze()  # or Python looks through every module for garbage before it leaves, for a second
    return 0


def _run_flow(flow_name: str, recipe: Any, content: str, settings: Any, *, starts_with_ingest: bool) -> None:
    """Run a flow against a Prefect API of its own, or the one that PREFECT_API_URL names."""
    from cluster.embedded import PrefectApi
    from cluster.launch import get_ready
    from flows.console import Console, use_console

    signal.signal(signal.SIGTERM, _interrupt)
    api = None if os.environ.get("PREFECT_API_URL") else PrefectApi(settings)
    console = Console()
    try:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # the console speaks; errors reach main()
        if api is not None:
            os.environ.update({**api.environment, "PREFECT_API_URL": api.url})
        if starts_with_ingest:
            get_ready(settings, "ingest")
        from flows import pipeline

        if api is not None:
            api.wait()
        use_console(console)
        getattr(pipeline, flow_name)(recipe, content)
    except FoundationError:
        raise
    except Exception as error:
        if api is not None and api.part.process.poll() is not None:
            raise TransientError("the Prefect API died", fix="run the same command again: it continues") from error
        raise
    finally:
        console.close()
        if api is not None:
            api.end()


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
