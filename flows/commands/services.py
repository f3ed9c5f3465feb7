"""`foundation up`, `status` and `down`: the services of a data folder, seen and handled by a person."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.stack import Stack, State

OPEN = {"prefect": "start runs, watch them", "mlflow": "runs, models, cards", "ray": "jobs, workers", "runner": ""}
"""What a person does at each address."""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Nothing, or the form of the answer."""
    if name == "status":
        parser.add_argument("--json", action="store_true", help="for a script")


def run(arguments: argparse.Namespace) -> int:
    """Do what the command says to the services of the data folder."""
    from cluster.settings import Settings
    from cluster.stack import Stack

    stack = Stack(Settings.from_environment())
    if arguments.command == "status":
        return _status(stack, as_json=arguments.json)
    return _up(stack) if arguments.command == "up" else _down(stack)


def _up(stack: Stack) -> int:
    """Start what does not run, wait until everything answers, print the addresses."""
    broken = any(state.word == "died" for state in stack.status())
    _print(stack.up(print))
    if broken:
        _settle(stack)
    print(f"Ray's token is in {stack.folder / 'ray-token'}; `foundation down` ends everything")
    return 0


def _settle(stack: Stack) -> None:
    """Bring what died with a service to a true end, now; the runner looks every few seconds too."""
    from cluster.settings import Settings

    os.environ.update(stack.environment())
    from flows.reconcile import reconcile  # Prefect reads its address when it is imported

    reconcile(Settings.from_environment(), print)


def _status(stack: Stack, *, as_json: bool) -> int:
    """How every service is; 1 if one that was started is not up."""
    states = stack.status()
    if as_json:
        rows = [{"name": s.name, "state": s.word, "url": s.url, "pid": s.pid, "bytes": s.bytes} for s in states]
        print(json.dumps(rows))
    else:
        _print(states)
    return int(any(state.word not in ("up", "down") for state in states))


def _down(stack: Stack) -> int:
    """End every service."""
    stack.down(print)
    return 0


def _print(states: Sequence[State]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False)
    for column in ("service", "state", "address", "memory", ""):
        table.add_column(column, justify="right" if column == "memory" else "left")
    colours = {"up": "green", "down": "dim"}
    for state in states:
        word = f"[{colours.get(state.word, 'red')}]{state.word}[/]"
        memory = f"{state.bytes / 1e6:.0f} MB" if state.bytes else ""
        table.add_row(f"[bold cyan]{state.name}[/]", word, state.url, memory, f"[dim]{OPEN[state.name]}[/]")
    Console(highlight=False, width=110).print(table)
