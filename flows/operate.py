"""`foundation up`, `status` and `down`: the services of a data folder, seen and handled by a person."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from cluster.settings import Settings
from cluster.stack import Stack, State

OPEN = {"prefect": "start runs, watch them", "mlflow": "runs, models, cards", "ray": "jobs, workers", "runner": ""}
"""What a person does at each address."""


def up(settings: Settings) -> int:
    """Start what does not run, wait until everything answers, print the addresses."""
    states = Stack(settings).up(print)
    _print(states)
    print(f"Ray's token is in {settings.home / 'stack' / 'ray-token'}; `foundation down` ends everything")
    return 0


def status(settings: Settings, *, as_json: bool) -> int:
    """How every service is; 1 if one that was started is not up."""
    states = Stack(settings).status()
    if as_json:
        rows = [{"name": s.name, "state": s.word, "url": s.url, "pid": s.pid, "bytes": s.bytes} for s in states]
        print(json.dumps(rows))
    else:
        _print(states)
    return int(any(state.word not in ("up", "down") for state in states))


def down(settings: Settings) -> int:
    """End every service."""
    Stack(settings).down(print)
    return 0


def _print(states: list[State]) -> None:
    table = Table(show_edge=False)
    for column in ("service", "state", "address", "memory", ""):
        table.add_column(column, justify="right" if column == "memory" else "left")
    colours = {"up": "green", "down": "dim"}
    for state in states:
        word = f"[{colours.get(state.word, 'red')}]{state.word}[/]"
        memory = f"{state.bytes / 1e6:.0f} MB" if state.bytes else ""
        table.add_row(f"[bold cyan]{state.name}[/]", word, state.url, memory, f"[dim]{OPEN[state.name]}[/]")
    Console(highlight=False, width=110).print(table)
