"""What a person sees while a pipeline runs: progress bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from foundation_core.failures import told

LINE_SECONDS = 10.0
"""Seconds between two plain progress lines."""


class Console:
    """Shows the events of stages.

    Args:
        terminal: whether bars can be drawn; found out if not said.
    """

    def __init__(self, terminal: bool | None = None) -> None:
        self.rich = RichConsole(highlight=False, soft_wrap=True)
        self._bars = self.rich.is_terminal if terminal is None else terminal
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._start = time.monotonic()
        self._last_line = 0.0
        self._phase: dict[str, str] = {}

    def say(self, stage: str, text: str) -> None:
        """One line, with the time since the start and the stage."""
        self.rich.print(f"[dim]{time.monotonic() - self._start:6.1f} s[/]  [bold cyan]{stage:<9}[/] ", end="")
        self.rich.print(text, markup=False)

    def report(self, stage: str, event: dict[str, Any]) -> None:
        """Show one event of a stage."""
        kind = event["kind"]
        if kind == "say":
            self.say(stage, event["text"])
        elif kind in ("failure", "recovered"):
            self.say(stage, told(event))
        elif kind == "reused":
            self.say(stage, "done before, reused")
        elif kind == "phase":
            self._phase[stage] = event["name"]
        elif kind == "progress":
            self._show_progress(stage, event)
        elif kind == "end":
            self._end_bar()
            self.say(stage, event["status"])

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._end_bar()

    def _show_progress(self, stage: str, event: dict[str, Any]) -> None:
        done, total, phase = event["done"], event["total"], self._phase.get(stage, "")
        if self._bars:
            if self._progress is None:
                self._progress = _bar(self.rich)
                self._progress.start()
                self._task = self._progress.add_task("")
            assert self._task is not None
            description = f"{stage} · {phase}" if phase != stage else stage
            self._progress.update(
                self._task,
                description=description,
                completed=done,
                total=total,
                note=f"{event['unit']}  {event['note']}",
            )
        elif time.monotonic() - self._last_line > LINE_SECONDS or done == total:
            self._last_line = time.monotonic()
            self.say(stage, f"{phase}: {done} of {total} {event['unit']}  {event['note']}".rstrip())

    def _end_bar(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _bar(console: RichConsole) -> Progress:
    return Progress(
        TextColumn("          [bold cyan]{task.description}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


class SilentConsole(Console):
    """Shows nothing: what a flow uses when no command started it."""

    def report(self, stage: str, event: dict[str, Any]) -> None:
        """Show nothing."""


_CURRENT: ContextVar[Console | None] = ContextVar("console", default=None)


def use_console(console: Console) -> None:
    """Let the flows of this thread show their events on a console."""
    _CURRENT.set(console)


def current_console() -> Console:
    """The console of this thread, or a silent one."""
    return _CURRENT.get() or SilentConsole(terminal=False)
