"""Launchers: start a job, follow its event log, stop it. Local process and Ray job differ in nothing else.

start(job) -> [ events ... ] -> the event `end`   (or the process or job dies without one)
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from cluster.embedded import TRAIN, Part
from cluster.job import Job
from cluster.patience import STOP_SECONDS, Patience
from cluster.ray_jobs import cluster_cpus, connect, inherited_environment, live_jobs, reaching
from cluster.settings import Settings
from cluster.stop import RequeueInterrupt, StopFile
from foundation_core.errors import FoundationError, Stopped, TransientError
from foundation_core.events import EVENTS_FILE, EventLog, read_events
from foundation_core.store import RESULT_FILE

Event = dict[str, Any]
POLL_SECONDS = 0.1
LOOK_SECONDS = 1.0
"""How often the launcher asks whether a silent job still lives."""
AGENT_SECONDS = 60.0
NO_AGENT = "No available agent"
"""In Ray's words, which has no type for it."""


KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**28),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""Makes glibc keep what a step frees for the next one. Otherwise each activation of some megabytes is mapped anew, page
by page: 4,000 page faults and 9 ms of a step of 125 ms."""


class Launcher(Protocol):
    """Runs jobs somewhere."""

    def start(self, job: Job) -> str:
        """Start a job; its id, by which it is found again."""

    def is_alive(self, job_id: str) -> bool:
        """Whether the job still runs."""

    def kill(self, job_id: str) -> None:
        """End the job now."""


class LocalLauncher:
    """One local process that takes one job after the other, so that its imports are paid once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._part: Part | None = None

    def warm(self, stage: str) -> None:
        """Let the process import what a stage needs, before the stage is due."""
        self._tell(f"warm {stage}")

    def start(self, job: Job) -> str:
        """Hand the job to the process."""
        self._tell(f"run {job.write()}")
        assert self._part is not None
        return f"process-{self._part.process.pid}"

    def is_alive(self, job_id: str) -> bool:
        """Whether the process still runs."""
        return self._part is not None and self._part.process.poll() is None

    def kill(self, job_id: str) -> None:
        """End the process."""
        self.end()

    def end(self) -> None:
        """End the process, if there is one."""
        if self._part is not None:
            self._part.end()
            self._part = None

    def _tell(self, line: str) -> None:
        if self._part is None or self._part.process.poll() is not None:
            command = [sys.executable, "-m", "cluster.job", "--serve"]
            self._part = Part("stages", command, self._settings, {"CUDA_VISIBLE_DEVICES": ""}, STOP_SECONDS)
        assert self._part.process.stdin is not None
        self._part.process.stdin.write(line.encode() + b"\n")
        self._part.process.stdin.flush()


_READY: ContextVar[LocalLauncher | None] = ContextVar("ready", default=None)


def get_ready(settings: Settings, stage: str) -> None:
    """Let a local process import what a stage needs, before the session that will use it is opened."""
    launcher = LocalLauncher(settings)
    launcher.warm(stage)
    _READY.set(launcher)


def ready_launcher(settings: Settings) -> LocalLauncher:
    """The local launcher that was got ready, once; or a new one."""
    launcher = _READY.get()
    _READY.set(None)
    return launcher or LocalLauncher(settings)


class RayLauncher:
    """Jobs of a Ray cluster, by its Jobs API; a job found alive under its id is followed, not started twice."""

    def __init__(self, address: str) -> None:
        self.address, self._client = address, connect(address)
        self._last = ""

    def start(self, job: Job) -> str:
        """Submit the job, or find the live one of the same key.

        Raises:
            SetupError: Ray does not answer.
            TransientError: Ray did not take it.
        """
        self._last = ""
        with reaching(self.address):
            self._last = self._start(job)
        return self._last

    def _start(self, job: Job) -> str:
        prefix = f"{job.stage}-{job.key['digest'][:12]}-"
        for name in live_jobs(self.address):
            if name.startswith(prefix) and not self._left(name, Path(job.folder)):
                return name
        mine = [j for j in self._client.list_jobs() if j.submission_id and j.submission_id.startswith(prefix)]
        submit = partial(
            self._client.submit_job,
            # `exec`, or a signal would end the shell by which Ray starts it
            entrypoint=f"exec {sys.executable} -m {job.module} {job.write()}",
            submission_id=f"{prefix}{len(mine)}",
            runtime_env={
                **inherited_environment(),
                "env_vars": {"PYTHONSAFEPATH": "1", **TRAIN, **KEEP_MEMORY, **job.environment},
            },
        )
        return _patiently(submit)

    def _left(self, job_id: str, folder: Path) -> bool:
        """Whether a live job had said its last word before we came, and is gone now without a result."""
        kinds = [event["kind"] for _, event in read_events(folder)]
        if kinds[-2:] != ["end", "start"]:  # the start is ours
            return False
        while self.is_alive(job_id):
            time.sleep(POLL_SECONDS)
        return not (folder / RESULT_FILE).exists()

    def is_alive(self, job_id: str) -> bool:
        """Whether Ray says that the job waits or runs; a cluster that does not answer runs nothing for us."""
        try:
            return not self._client.get_job_status(job_id).is_terminal()
        except (OSError, RuntimeError):  # requests' errors are OSErrors
            return False

    def is_gone(self) -> bool:
        """Whether the cluster does not answer, or knows nothing of the job that was started last: its head is new."""
        try:
            self._client.get_job_status(self._last) if self._last else self._client.get_version()
        except (OSError, RuntimeError):
            return True
        return False

    def has_cpus(self, count: int) -> bool:
        """Whether the cluster answers and its nodes have so many CPUs."""
        try:
            return cluster_cpus(self.address) >= count
        except (FoundationError, OSError, RuntimeError):
            return False

    def kill(self, job_id: str) -> None:
        """Stop the job by Ray."""
        with contextlib.suppress(OSError, RuntimeError):
            self._client.stop_job(job_id)


def _patiently(submit: Callable[[], str]) -> str:
    """The id of a submitted job. A head answers seconds before the agent is there that starts jobs."""
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            return submit()
        except RuntimeError as error:
            if NO_AGENT not in str(error):
                fix = "read Ray's log, then run the same command again"
                raise TransientError(f"Ray did not take the job: {error}", fix=fix) from error
            if time.monotonic() > deadline:
                fix = "see that the cluster's head runs, then run the same command again"
                raise TransientError(f"Ray has nobody to start jobs after {AGENT_SECONDS:.0f} s", fix=fix) from error
            time.sleep(POLL_SECONDS)


def follow(launcher: Launcher, job: Job, report: Callable[[Event], None]) -> str:
    """Run a job to its end and report each of its events; the job's id.

    An interruption of the caller, of whatever kind, is passed on to the job, which saves its work first.

    Raises:
        FoundationError: what the job raised.
        TransientError: the job died without a word.
    """
    folder = Path(job.folder)
    stop = StopFile(folder)
    stop.clear()
    log = _LogReader(folder, _end_of_log(folder))
    EventLog(folder).write("start", key=job.key["digest"])
    job_id = launcher.start(job)
    try:
        return log.follow(launcher, job_id, report)
    except FoundationError:
        raise
    except BaseException as asked:
        stop.request(requeue=isinstance(asked, RequeueInterrupt))
        with contextlib.suppress(FoundationError):
            log.follow(launcher, job_id, report, Patience.with_job(job))
        launcher.kill(job_id)
        raise


class _LogReader:
    """Reads a job's event log, each event once."""

    def __init__(self, folder: Path, offset: int) -> None:
        self._folder, self._offset = folder, offset

    def follow(
        self, launcher: Launcher, job_id: str, report: Callable[[Event], None], patience: Patience | None = None
    ) -> str:
        """Report events until the one that ends the job; the job's id.

        Args:
            patience: with a job that was asked to stop.
        """
        next_look = time.monotonic() + LOOK_SECONDS
        while patience is None or not patience.is_over:
            alive = True
            if time.monotonic() > next_look:  # before reading: what a job said last is read after it was seen dead
                next_look = time.monotonic() + LOOK_SECONDS
                alive = launcher.is_alive(job_id)
            for behind, event in read_events(self._folder, self._offset):
                self._offset = behind
                if patience is not None:
                    patience.hear(event)
                report(event)
                if event["kind"] == "end":
                    return _ended(event, job_id)
            if not alive and (self._folder / RESULT_FILE).exists():  # it ended while we took it up
                return job_id
            if not alive:
                fix = "run the same command again: it continues from what was saved"
                raise TransientError(f"{job_id} died without a word", fix=fix)
            time.sleep(POLL_SECONDS)
        raise TransientError(f"{job_id} was asked to stop and silent for {patience.seconds:.0f} s")


def _ended(event: Event, job_id: str) -> str:
    if event["status"] == "done":
        return job_id
    error = FoundationError.from_json(event["error"])
    if isinstance(error, Stopped):
        raise type(error)(error.found, fix="run the same command again: it continues")
    raise error


def _end_of_log(folder: Path) -> int:
    path = folder / EVENTS_FILE
    return os.path.getsize(path) if path.exists() else 0
