"""A Ray cluster that goes away under a job is waited for, and the job submitted again: it goes on from what was saved.

follow the job -> lost -> Ray answers and knows how it ended?  -> the job's own end
      ^             |---> silent, or knows nothing of the job? -> event `failure`: ray_away -> wait
      |                                                                                         |
      +-------- it answers, with the CPUs that the stage needs <--------------------------------+--> a stop, or
                                                                                                     patience over
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cluster.job import Job
from cluster.launch import POLL_SECONDS, Event, Launcher, follow
from cluster.stop import StopFile
from foundation_core.errors import FoundationError, SetupError, Stopped, TransientError
from foundation_core.events import EVENTS_FILE, EventLog, read_events
from foundation_core.failures import FAILURES, Budgets
from foundation_core.specs import PretrainSpec

AWAY = "ray_away"
PATIENCE_SECONDS = 600.0
"""How long an absent Ray is waited for: enough for a person who is told, not so long that a run nobody looks after
holds its lease and its pages for a night."""
CONFIRM_SECONDS = 10.0
"""How long Ray is watched after a job was lost: of a head of which one part was killed the others answer a while."""
LOOK_SECONDS = 1.0
_UNEXPLAINED = (TransientError, FoundationError, SetupError)
"""What a job, or the attempt to start one, may say whose cluster breaks away below it; all other kinds name a cause."""


class AwayLauncher(Launcher, Protocol):
    """A launcher of jobs on a cluster that may go away."""

    address: str

    def is_gone(self) -> bool:
        """Whether the cluster does not answer, or knows nothing of the job that was started last."""

    def has_cpus(self, count: int) -> bool:
        """Whether the cluster answers and has so many CPUs."""


def follow_through_outages(launcher: AwayLauncher, job: Job, report: Callable[[Event], None], brings_back: str) -> str:
    """As `follow`, and a cluster that goes away meanwhile is waited for; the id of the job that came to its end.

    Args:
        brings_back: for people: what has to happen.

    Raises:
        FoundationError: what the job raised.
        TransientError: the job died while its cluster lives; or the patience, or the failures in a row, are used up.
        Stopped: somebody asked while nobody was at work.
    """
    course, budgets = _Course(Path(job.folder), report), Budgets()
    while True:
        try:
            return course.ended(follow(launcher, job, course.hear))
        except FoundationError as lost:
            if type(lost) not in _UNEXPLAINED or not _is_gone(launcher):
                raise
            if course.take_progress():
                budgets.renew()
            goes_on = budgets.spend(AWAY)
            minutes = PATIENCE_SECONDS / 60
            course.lose(
                f"Ray at {launcher.address} is away: {brings_back}; waiting {minutes:.0f} minutes", budgets.left(AWAY)
            )
            if not goes_on:
                found = f"{lost.found}; {AWAY} came {budgets.spent(AWAY)} times in a row"
                raise TransientError(found, fix=FAILURES[AWAY].to_do) from lost
            if not course.wait(lambda: launcher.has_cpus(_cpus(job))):
                raise


def _is_gone(launcher: AwayLauncher) -> bool:
    deadline = time.monotonic() + CONFIRM_SECONDS
    while not launcher.is_gone():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _cpus(job: Job) -> int:
    """What the cluster must have before the stage can go on: nodes join one after the other."""
    spec = job.typed_spec()
    return spec.fewest_workers * spec.threads_per_worker if isinstance(spec, PretrainSpec) else 1


class _Course:
    """How far a job came, over all the clusters that it had; tells of their absence in its event log."""

    def __init__(self, folder: Path, report: Callable[[Event], None]) -> None:
        self._folder, self._report = folder, report
        self._furthest: dict[str, int] = {}
        self._got_further = False
        self._away_since: float | None = None

    def hear(self, event: Event) -> None:
        """Take in an event of the job and report it."""
        if event["kind"] == "progress":
            unit, done = str(event["unit"]), int(event["done"])
            if done > self._furthest.get(unit, -1):
                self._furthest[unit], self._got_further = done, True
            self._tell_recovered(done if unit == "steps" else None)
        self._report(event)

    def ended(self, job_id: str) -> str:
        """The id, once the job is through."""
        self._tell_recovered(None)
        return job_id

    def take_progress(self) -> bool:
        """Whether the job got further than ever since this was asked last."""
        got_further, self._got_further = self._got_further, False
        return got_further

    def lose(self, what: str, budget_left: int | None) -> None:
        """Tell that the cluster is away."""
        if self._away_since is None:
            self._away_since = time.time()
        offset = (self._folder / EVENTS_FILE).stat().st_size
        step = self._furthest.get("steps")
        EventLog(self._folder).write(
            "failure", failure=AWAY, step=step, attempt=None, budget_left=budget_left, what=what
        )
        for _, event in read_events(self._folder, offset):
            self._report(event)

    def wait(self, is_back: Callable[[], bool]) -> bool:
        """Return once the cluster is back; False if it is not when the patience is over.

        Raises:
            Stopped: somebody asked for the stage's end.
        """
        stop, deadline, next_look = StopFile(self._folder), time.monotonic() + PATIENCE_SECONDS, 0.0
        while time.monotonic() < deadline:
            if stop.end_requested():
                again = "run the same command again: it continues"
                error = stop.ended_by(Stopped("stopped while Ray was away; what was saved is kept", fix=again))
                EventLog(self._folder).write("end", status="stopped", error=error.to_json())
                raise error
            if time.monotonic() > next_look:
                if is_back():
                    return True
                next_look = time.monotonic() + LOOK_SECONDS
            time.sleep(POLL_SECONDS)
        return False

    def _tell_recovered(self, step: int | None) -> None:
        if self._away_since is not None:
            seconds = round(time.time() - self._away_since, 3)
            EventLog(self._folder).write("recovered", failure=AWAY, step=step, seconds=seconds)
            self._away_since = None
