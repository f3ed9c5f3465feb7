"""The events of stages as plain lines: for logs, and for jobs that nobody watches in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from foundation_core.errors import FoundationError
from foundation_core.failures import told

LINE_SECONDS = 10.0
"""Seconds between two lines that say how far a stage is."""


class PlainLines:
    """Says the events that are for people, one line each; of the many that say how far a stage is, some.

    Args:
        stamp: what the line of an event begins with.
    """

    def __init__(self, stamp: Callable[[dict[str, Any]], str]) -> None:
        self._stamp = stamp
        self._next_progress = 0.0
        self._phase: dict[str, str] = {}

    def report(self, stage: str, event: dict[str, Any]) -> None:
        """Print one event of a stage, if it is for people."""
        now = float(event.get("time", time.time()))
        if event["kind"] == "phase":
            self._phase[stage] = event["name"]
        if event["kind"] == "progress":
            if now < self._next_progress and event["done"] < event["total"]:
                return
            self._next_progress = now + LINE_SECONDS
        for text in self._text(stage, event).splitlines():
            print(f"{self._stamp(event)}  {stage:<9} {text}", flush=True)

    def _text(self, stage: str, event: dict[str, Any]) -> str:
        match event["kind"]:
            case "say":
                return str(event["text"])
            case "failure" | "recovered":
                return told(event)
            case "reused":
                return "done before, reused"
            case "start" | "launch":
                return "starts" if event["kind"] == "start" else ""
            case "rank":
                return f"worker {event['rank']} on node {event['node'][:12]}, process {event['pid']}"
            case "progress":
                phase = self._phase.get(stage, stage)
                return f"{phase}: {event['done']} of {event['total']} {event['unit']}  {event['note']}".rstrip()
            case "end":
                error = event.get("error")
                return str(event["status"]) + (f": {FoundationError.from_json(error)}" if error else "")
        return ""


def lines_of_this_run() -> PlainLines:
    """Lines that begin with the seconds since now."""
    start = time.monotonic()
    return PlainLines(lambda event: f"{time.monotonic() - start:8.1f} s")


def lines_of_a_log() -> PlainLines:
    """Lines that begin with the time at which an event was written."""
    return PlainLines(lambda event: f"{datetime.fromtimestamp(event['time']):%Y-%m-%d %H:%M:%S}")
