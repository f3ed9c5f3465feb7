"""The `foundation` command. Nothing heavy is imported before it is known to be needed.

Exit status: 0 done, 1 failed, 2 a mistake in the recipe, the data or the set-up (nothing was lost), 130 stopped.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from flows.recipes import find_recipe, parse_overrides
from foundation_core.errors import ConfigError, FoundationError, TransientError

STAGE_COMMANDS = {
    "run": ("pipeline", "the whole pipeline: from raw files to a registered model"),
    "ingest": ("ingest", "raw files -> corpus"),
    "pretrain": ("pretrain", "corpus -> trunk"),
    "finetune": ("finetune", "trunk -> task models"),
    "evaluate": ("evaluate", "models -> scores"),
    "publish": ("publish", "models and scores -> registered version"),
}


SERVICE_COMMANDS = {
    "up": "start Prefect, MLflow, Ray and the runner for this data folder, and print their addresses",
    "status": "how each of them is; exit status 1 if one is not well",
    "down": "end all of them",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.command in ("fields", "look", *SERVICE_COMMANDS):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if arguments.command == "fields":
            return _print_fields()
        if arguments.command == "look":
            _look(arguments.port)
        if arguments.command in SERVICE_COMMANDS:
            return _operate(arguments)
        overrides = parse_overrides(rest)
        if arguments.command == "why":
            return _why(find_recipe(arguments.recipe), overrides)
        return _run(STAGE_COMMANDS[arguments.command][0], find_recipe(arguments.recipe), overrides)
    except FoundationError as error:
        print(f"foundation: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `foundation fields | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("foundation: stopped; run the same command again and it continues", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="foundation",
        description="From raw files to a registered foundation model.",
        epilog="Any field of the recipe can be set after it: --pretrain.steps 100 --finetune.lr '[0.001]'",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in STAGE_COMMANDS.items():
        commands.add_parser(name, help=text).add_argument("recipe", help="a YAML file, or the name of one in recipes/")
    why = commands.add_parser("why", help="for each stage: reuse, or what changed; starts nothing")
    why.add_argument("recipe", help="a YAML file, or the name of one in recipes/")
    look = commands.add_parser("look", help="MLflow in the browser: runs, plots, cards, registered models")
    look.add_argument("--port", type=int, default=5000, help="loopback port, 5000 if not said")
    for name, text in SERVICE_COMMANDS.items():
        service = commands.add_parser(name, help=text)
        if name == "status":
            service.add_argument("--json", action="store_true", help="for a script")
    commands.add_parser("fields", help="every field of a recipe, with its default and meaning")
    return parser


def _run(flow_name: str, path: Path, overrides: Sequence[tuple[str, str]]) -> int:
    from cluster.planning import INPUTS, plan, source_content_of
    from cluster.preflight import preflight
    from cluster.settings import Settings
    from cluster.stack import Stack
    from flows.summary import print_summary
    from foundation_core.recipe import load_recipe
    from foundation_core.store import Store

    os.environ.update(Stack(Settings.from_environment()).environment())
    recipe, settings = load_recipe(path, overrides), Settings.from_environment()
    preflight(recipe, settings)
    content = source_content_of(recipe)
    stages = list(INPUTS) if flow_name == "pipeline" else list(INPUTS)[: list(INPUTS).index(flow_name) + 1]
    steps = plan(recipe, Store(settings.results), content)[: len(stages)]
    done = all(step.result is not None and step.result.ids for step in steps)
    if not done:
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


def _operate(arguments: argparse.Namespace) -> int:
    from cluster.settings import Settings
    from flows import operate

    settings = Settings.from_environment()
    if arguments.command == "status":
        return operate.status(settings, as_json=arguments.json)
    return operate.up(settings) if arguments.command == "up" else operate.down(settings)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _why(path: Path, overrides: Sequence[tuple[str, str]]) -> int:
    from cluster.planning import plan, source_content_of
    from cluster.settings import Settings
    from foundation_core.recipe import load_recipe
    from foundation_core.store import Store

    recipe, settings = load_recipe(path, overrides), Settings.from_environment()
    for step in plan(recipe, Store(settings.results), source_content_of(recipe)):
        if step.result is not None:
            print(f"{step.stage:<9} reuse  {step.result.folder}")
        else:
            print(f"{step.stage:<9} run    {'; '.join(step.reasons)}")
    return 0


def _look(port: int) -> NoReturn:
    """Become an MLflow server over the data folder, on loopback, until Ctrl-C."""
    from cluster.settings import Settings

    settings = Settings.from_environment()
    if not settings.home.is_dir():
        raise ConfigError(f"{settings.home} is not there", fix="run `make run` first, or set FOUNDATION_HOME")
    if settings.tracking_uri.startswith("http"):
        raise ConfigError(f"FOUNDATION_MLFLOW_URI names a server: look at {settings.tracking_uri}")
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", settings.mlflow_uri, *where]
    print(f"MLflow at http://127.0.0.1:{port} (Ctrl-C ends it)")
    sys.stdout.flush()
    os.execve(sys.executable, command, {**os.environ, **environment})


def _print_fields() -> int:
    from foundation_core.specs import PipelineSpec, described_leaves

    for name, default, text in described_leaves(PipelineSpec):
        print(f"--{name} {default}\n      {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
