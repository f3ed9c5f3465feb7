"""Ends a training that hangs: a rank of which nothing is heard, and with it all that wait for it in a collective call.

    loop: begins("step", 43) -> [ too long silent? somebody's alarm? ] each few seconds, in a thread of every rank
                                   |
        stacks/<attempt>/alarm.json    the first rank that notices; all others look for it
        stacks/<attempt>/rank-N.txt    what every thread of rank N was doing
        events: `failure` hang, with the last word of each rank and the names of those that have none -> exit

A rank that was stopped, or whose node is cut off, cannot say that it hangs: the others wait for it in a collective
call, notice it by their own clocks and leave. Whoever started them takes that for lost workers and ends the rest.
Where ranks share no folder the alarm is not heard, and each leaves by its own clock.
"""

from __future__ import annotations

import faulthandler
import os
import statistics
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

from foundation_core.events import EventLog
from foundation_core.specs.watch import WatchSpec

STACKS_FOLDER = "stacks"
ALARM_FILE = "alarm.json"
HUNG_STATUS = 75
"""Exit status of a process that hung: EX_TEMPFAIL of sysexits.h, trying again can help."""
_LOOKS = 10
_LOOK_SECONDS = 5.0
_REMEMBERED = 64


class Word(NamedTuple):
    """What a rank said last: it began something, at a moment of its monotonic clock."""

    what: str
    step: int
    at: float


class Watchdog:
    """Watches one rank while the block runs.

    Args:
        folder: of the stage.
        attempt: names this start of the ranks, the same on all of them: nobody hears the alarm of an earlier one.
    """

    def __init__(self, folder: Path, spec: WatchSpec, rank: int, world: int, attempt: str) -> None:
        self._stage, self.folder = folder, folder / STACKS_FOLDER / attempt
        self._spec, self._rank, self._world = spec, rank, world
        self._taken: Mapping[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._word = Word("start", 0, time.monotonic())
        self._look_seconds = min(_LOOK_SECONDS, (spec.hang_seconds or _LOOK_SECONDS * _LOOKS) / _LOOKS)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def begins(self, what: str, step: int) -> None:
        """Say what begins now; what was said before has ended."""
        now, last = time.monotonic(), self._word
        self._taken[last.what].append(now - last.at)
        self._word = Word(what, step, now)

    def patience_seconds(self, what: str) -> float:
        """How long a rank may be silent in something: by the median of its own times, as far as there are some."""
        assert self._spec.hang_seconds is not None
        taken = list(self._taken[what])
        if not taken:
            return max(self._spec.first_seconds, self._spec.hang_seconds)
        return max(self._spec.hang_seconds, self._spec.hang_medians * statistics.median(taken))

    def __enter__(self) -> Self:
        """Begin, unless the spec says that nobody watches."""
        self._word = Word("start", 0, time.monotonic())
        if self._spec.hang_seconds is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._stacks = open(self._of(self._rank), "w")  # now: a hang may be a disk's
            self._arm(self.patience_seconds("start"))
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching; stacks that nobody needed are removed."""
        self._left.set()
        if self._spec.hang_seconds is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()
            self._stacks.close()
            self._of(self._rank).unlink(missing_ok=True)
            with suppress(OSError):  # the other ranks' files are there, or stacks of an earlier hang
                self.folder.rmdir()
                self.folder.parent.rmdir()

    def _watch(self) -> None:
        while not self._left.wait(self._look_seconds):
            word = self._word
            silent, patience = time.monotonic() - word.at, self.patience_seconds(word.what)
            self._arm(patience)
            if silent > patience:
                self._raise_alarm(word, silent)
            elif (self.folder / ALARM_FILE).exists():
                self._write_stacks(word, silent)
                time.sleep(3 * self._look_seconds)  # who raised it reads the words of all before one is seen to be gone
                os._exit(HUNG_STATUS)

    def _arm(self, patience: float) -> None:
        """Begin anew a timer that writes the stacks and ends the process.

        A call that never gives Python's lock back stops the watching thread too. The timer's thread is C's and needs no
        lock; it runs out if nobody begins it anew.
        """
        faulthandler.dump_traceback_later(patience + 2 * self._look_seconds, exit=True, file=self._stacks)

    def _raise_alarm(self, word: Word, silent: float) -> None:
        try:
            self._write_stacks(word, silent)
            with open(self.folder / ALARM_FILE, "x") as alarm:
                alarm.write(f'{{"rank": {self._rank}, "what": "{word.what}", "step": {word.step}}}\n')
            time.sleep(2 * self._look_seconds)
            words = {rank: said for rank in range(self._world) if (said := self._said(rank))}
            mute = [rank for rank in range(self._world) if rank not in words]
            told = f"rank {self._rank} waited {silent:.0f} s in {word.what} {word.step}"
            missing = f"; no word from {', '.join(map(str, mute[:16]))}" if mute else ""
            EventLog(self._stage).write(
                "failure", failure="hang", step=word.step, attempt=None, budget_left=None, what=told + missing,
                rank=self._rank, phase=word.what, words=words, mute=mute,
                stacks=str(self.folder.relative_to(self._stage)),
            )  # fmt: skip
        except FileExistsError:  # somebody was faster, and tells
            time.sleep(3 * self._look_seconds)
        finally:
            os._exit(HUNG_STATUS)

    def _write_stacks(self, word: Word, silent: float) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._stacks.write(f"rank {self._rank}: {word.what} {word.step}, for {silent:.1f} s ({now}, {os.getpid()})\n")
        self._stacks.flush()
        faulthandler.dump_traceback(self._stacks, all_threads=True)
        print(f"foundation: rank {self._rank} hangs; its stacks are in {self._of(self._rank)}", file=sys.stderr)

    def _said(self, rank: int) -> str:
        """The first line of a rank's stacks; empty while it wrote none."""
        path = self._of(rank)
        return path.read_text().partition("\n")[0] if path.exists() else ""

    def _of(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.txt"
