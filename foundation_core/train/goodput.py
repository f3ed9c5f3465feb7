"""Where the seconds of a training went, over all its attempts: read from its event log, and from nothing else.

    events -> marks (start, step, validation, save, failure, end) -> each second between two marks has one cause

A step counts once, by its last time; what it took before is lost. So does everything that is no step: the parts add up
to the wall time from the first start to the end.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundation_core.events import read_events
from foundation_core.failures import FAILURES, Remedy

STEP_SECONDS = "train/step_seconds"
VALIDATION_SECONDS = "validation/seconds"
SAVE_SECONDS = "checkpoint/stall_seconds"
TOKENS = "train/tokens"

CAUSES = ("repeated", "start", "validation", "save", "failure", "away", "other")
"""What a second may have gone into that no step has: steps done again later, from a launch or an attempt to its first
step, validations, waiting for saves, from an attempt's last sign to the next attempt, nobody at work, all else."""

GOES_ON = frozenset(name for name, row in FAILURES.items() if row.remedy is Remedy.GO_ON)
"""Failures that cost no attempt: the training goes on beside them."""


@dataclass
class Goodput:
    """The account of one training.

    Args:
        useful_seconds: of steps, each counted once.
        lost_seconds: by cause.
        steps: different steps that were done.
        repeated_steps: steps done again, as often as they were.
        repeated_tokens: labels trained on in them.
        restarts: launches and attempts but the first.
        failures: how often each class was named.
    """

    useful_seconds: float = 0.0
    lost_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    steps: int = 0
    repeated_steps: int = 0
    repeated_tokens: int = 0
    restarts: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def wall_seconds(self) -> float:
        """From the first start to the end, pauses between attempts included."""
        return self.useful_seconds + sum(self.lost_seconds.values())

    @property
    def fraction(self) -> float:
        """Useful step time over wall time; 0 before there was any."""
        return self.useful_seconds / self.wall_seconds if self.wall_seconds else 0.0

    def metrics(self) -> dict[str, float]:
        """As final figures of the run."""
        return {
            "goodput/fraction": self.fraction,
            "goodput/wall_seconds": self.wall_seconds,
            "goodput/useful_seconds": self.useful_seconds,
            **{f"goodput/{cause}_seconds": seconds for cause, seconds in self.lost_seconds.items()},
            "goodput/repeated_steps": self.repeated_steps,
            "goodput/repeated_tokens": self.repeated_tokens,
            "goodput/restarts": self.restarts,
        }

    def to_json(self) -> dict[str, Any]:
        """As part of the stage's summary."""
        return {
            "fraction": self.fraction,
            "wall_seconds": self.wall_seconds,
            "useful_seconds": self.useful_seconds,
            "lost_seconds": dict(self.lost_seconds),
            "repeated_steps": self.repeated_steps,
            "repeated_tokens": self.repeated_tokens,
            "restarts": self.restarts,
            "failures": dict(self.failures),
        }

    def sentence(self) -> str:
        """For people: the share, and the largest losses first."""
        lost = sorted(self.lost_seconds.items(), key=lambda item: -item[1])
        words = ", ".join(f"{cause} {seconds:.1f} s" for cause, seconds in lost if seconds >= 0.05)
        again = f"; {self.repeated_tokens:,} tokens trained twice" if self.repeated_steps else ""
        return f"goodput {self.fraction:.1%} of {self.wall_seconds:.1f} s ({words or 'nothing lost'}){again}"


def goodput(folder: Path) -> Goodput:
    """The account of a stage's folder up to now, as a rank that is about to end its training asks for it."""
    return account((event for _, event in read_events(folder)), until=time.time())


def account(events: Iterable[Mapping[str, Any]], until: float | None = None) -> Goodput:
    """The account of an event log.

    Args:
        until: seconds since the epoch at which the account ends. None: at the last event.
    """
    ledger = _Ledger()
    for event in events:
        ledger.read(event)
    return ledger.closed(until)


class _Ledger:
    """Gives each second between two marks to one cause; `paid` is the moment up to which all are given."""

    def __init__(self) -> None:
        self.found = Goodput()
        self._paid: float | None = None
        self._heard = 0.0
        self._stepped = self._ended = False
        self._seconds: dict[int, float] = {}
        self._tokens: dict[int, float] = {}

    def read(self, event: Mapping[str, Any]) -> None:
        """Take in the next event; a clock that was put back stands still until it is there again."""
        before, self._heard = self._heard, max(self._heard, float(event["time"]))
        kind, values = event["kind"], event.get("values", {})
        if self._paid is None:
            self._paid = self._heard - values.get(STEP_SECONDS, 0.0)
            if kind == "start":
                return
        if kind == "metrics" and STEP_SECONDS in values:
            self._step(event["step"], values)
        elif kind == "metrics" and VALIDATION_SECONDS in values:
            self._pay_part("validation", values[VALIDATION_SECONDS])
        elif kind == "metrics" and SAVE_SECONDS in values:
            self._pay_part("save", values[SAVE_SECONDS])
        elif kind == "start":
            self._start(before)
        elif kind == "attempt":
            self._pay("failure" if self._stepped else "start")
            self.found.restarts += event["number"] > 0
            self._stepped = False
        elif kind == "failure":
            self.found.failures[event["failure"]] += 1
            if event["failure"] not in GOES_ON:
                self._pay("failure" if self._stepped else "start")
            self._stepped = self._stepped and "rewind_to" not in event  # what follows is a start
        elif kind == "end":
            self._pay("failure" if event["status"] == "failed" else "other")
            self._ended = True

    def closed(self, until: float | None) -> Goodput:
        """The account."""
        if self._paid is not None:
            self._heard = max(self._heard, until or 0.0)
            self._pay("away" if self._ended else "other")
        self.found.steps = len(self._seconds)
        self.found.useful_seconds = sum(self._seconds.values())
        return self.found

    def _start(self, last_sign: float) -> None:
        """A launch. If the one before left without a word, its last event of any kind is the end that is known."""
        self.found.restarts += 1
        if not self._ended:
            self._pay("failure" if self._stepped else "start", last_sign)
        self._pay("away")
        self._stepped = self._ended = False

    def _step(self, step: int, values: Mapping[str, float]) -> None:
        began = max(self._paid or 0.0, self._heard - values[STEP_SECONDS])
        self._pay("other" if self._stepped else "start", began)
        if step in self._seconds:
            self.found.lost_seconds["repeated"] += self._seconds[step]
            self.found.repeated_steps += 1
            before = self._tokens.get(step - 1, values[TOKENS] * (step - 1) / step)
            self.found.repeated_tokens += int(values[TOKENS] - before)
        self._seconds[step], self._tokens[step] = self._heard - began, values[TOKENS]
        self._paid, self._stepped = self._heard, True

    def _pay_part(self, cause: str, seconds: float) -> None:
        self._pay("other", max(self._paid or 0.0, self._heard - seconds))
        self._pay(cause)

    def _pay(self, cause: str, to: float | None = None) -> None:
        to = self._heard if to is None else to
        assert self._paid is not None
        self.found.lost_seconds[cause] += to - self._paid
        self._paid = to
