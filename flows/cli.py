"""The `foundation` command: a table of commands, each in a module that is imported when it is the one.

Exit status: 0 done, 1 failed, 2 a mistake in the recipe, the data or the set-up (nothing was lost), 130 stopped,
75 stopped by SIGUSR2: to be given to the queue again.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cluster.stop import RequeueInterrupt
from foundation_core.errors import FoundationError, Requeued, Stopped


class Command(NamedTuple):
    """A command: the module in `flows.commands` that is it, and what it does in a line."""

    module: str
    help: str


GROUPS: Mapping[str, Mapping[str, Command]] = {
    "begin": {
        "init": Command("init", "a recipe for your own texts, with sizes that fit them"),
    },
    "do the work": {
        "run": Command("stages", "the whole pipeline: from raw files to a registered model"),
        "sweep": Command("sweep", "a recipe once for each value of a field, and which is best"),
        "ingest": Command("stages", "raw files -> corpus"),
        "pretrain": Command("stages", "corpus -> trunk"),
        "finetune": Command("stages", "trunk -> task models"),
        "evaluate": Command("stages", "models -> scores"),
        "publish": Command("stages", "models and scores -> registered version"),
    },
    "on a Ray cluster, and what runs": {
        "submit": Command("submit", "the whole pipeline as one Ray job, followed to its end"),
        "runs": Command("runs", "what ran and runs in this data folder, newest first"),
        "logs": Command("runs", "what a stage or a submitted pipeline said"),
        "stop": Command("runs", "ask a running stage or submitted pipeline to save and leave"),
    },
    "look before": {
        "plan": Command("why", "what a recipe would do and take: stages, parameters, memory, disk, time"),
        "why": Command("why", "for each stage: reuse, or what changed, and what that costs"),
        "recipes": Command("recipes", "the recipes that are called by name"),
        "fields": Command("fields", "every field of a recipe, with its default and meaning"),
    },
    "look after": {
        "look": Command("look", "MLflow in the browser: runs, plots, cards, registered models"),
        "card": Command("card", "the data card of an ingestion: what it kept, lost and holds"),
        "peek": Command("peek", "documents of a data set: tokens, packed rows, shards, what was lost nearby"),
        "verify": Command("verify", "whether every file of a data set is what its manifest says"),
        "prune": Command("prune", "remove units of work that no ingestion has used for a while"),
    },
    "use a model": {
        "generate": Command("generate", "text from a published model"),
        "predict": Command("predict", "the class of each text of a table, with the probability of every class"),
    },
    "services of a data folder": {
        "up": Command("services", "start Prefect, MLflow, Ray and the runner, and print their addresses"),
        "status": Command("services", "how each of them is; exit status 1 if one is not well"),
        "down": Command("services", "end all of them"),
        "doctor": Command("doctor", "what is wrong here and what to do; ends what was killed and left traces"),
        "completion": Command("completion", "a script for bash, zsh or fish that completes commands and fields"),
    },
}
COMMANDS: Mapping[str, Command] = {name: command for group in GROUPS.values() for name, command in group.items()}
EPILOG = "`foundation COMMAND --help` says more. Any field of a recipe can be set behind it: --pretrain.steps 100"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = _chosen(words)
    module = importlib.import_module(f"flows.commands.{COMMANDS[name].module}")
    try:
        return int(module.run(_parsed(module, name, words[1:])))
    except FoundationError as error:
        print(f"foundation: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `foundation fields | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as asked:
        print("foundation: stopped; run the same command again and it continues", file=sys.stderr)
        return (Requeued if isinstance(asked, RequeueInterrupt) else Stopped).exit_code


def _chosen(words: Sequence[str]) -> str:
    """The command that the first word names; leaves with help or with what was meant, if none."""
    parser = argparse.ArgumentParser(
        prog="foundation", usage="foundation COMMAND ...", description=_overview(), epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("command", help=argparse.SUPPRESS)
    name = str(parser.parse_args(words[:1]).command)
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        parser.error(f"there is no command {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
    return name


def _parsed(module: Any, name: str, words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"foundation {name}", description=COMMANDS[name].help)
    parser.set_defaults(command=name, overrides=None)
    module.configure(parser, name)
    if parser.get_default("overrides") is None:
        return parser.parse_args(words)
    from foundation_core.recipe import parse_overrides

    arguments, rest = parser.parse_known_args(words)
    arguments.overrides = parse_overrides(rest)
    return arguments


def _overview() -> str:
    lines = ["From raw files to a registered foundation model."]
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<10} {command.help}" for name, command in commands.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
