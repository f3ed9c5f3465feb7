"""`foundation doctor`: what is wrong here and what to do; and what was killed is brought to a true end."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.diagnosis import Finding

MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red]problem[/]"}


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The form of the answer."""
    parser.add_argument("--json", action="store_true", help="for a script")


def run(arguments: argparse.Namespace) -> int:
    """Look, tell, and reconcile if Prefect is up; 1 if there is a problem."""
    from cluster.diagnosis import diagnose
    from cluster.settings import Settings
    from cluster.stack import Stack

    findings = diagnose(Settings.from_environment())
    os.environ.update(Stack(Settings.from_environment()).environment())
    settled: list[str] = []
    if "PREFECT_API_URL" in os.environ and not any(f.name == "PREFECT_API_URL" and f.fix for f in findings):
        from flows.reconcile import reconcile

        reconcile(Settings.from_environment(), settled.append)
    if arguments.json:
        print(json.dumps({"findings": [finding._asdict() for finding in findings], "reconciled": settled}))
    else:
        _print(findings, settled)
    return int(any(finding.level == "problem" for finding in findings))


def _print(findings: Sequence[Finding], settled: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=120)
    table = Table(show_edge=False, show_header=False, pad_edge=False)
    for finding in findings:
        text = finding.found + (f"\n[bold]to do:[/] {finding.fix}" if finding.fix else "")
        table.add_row(f"[bold cyan]{finding.name}[/]", MARKS[finding.level], text)
    console.print(table)
    for line in settled:
        console.print(f"[bold]settled[/]  {line}")
