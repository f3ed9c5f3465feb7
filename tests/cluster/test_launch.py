"""A launcher follows a job to its end, stops it gracefully, and notices when it dies."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cluster import launch
from cluster.job import Job, run
from cluster.launch import NO_AGENT, Event, LocalLauncher, _patiently, follow
from cluster.settings import Settings
from cluster.stop import StopFile
from foundation_core.errors import DataError, Stopped, TransientError
from foundation_core.events import EVENTS_FILE, read_events
from foundation_core.store import RESULT_FILE, load_result
from tests.cluster.conftest import Jobs


@pytest.fixture(scope="module")
def whole_content(make_ingest_job: Callable[..., Job], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The content hash of the small corpus, ingested in one go."""
    job = make_ingest_job(tmp_path_factory.mktemp("whole"))
    assert run(job) == 0
    return load_result(Path(job.folder)).content


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalLauncher]:
    """A local launcher that looks often, and whose process is gone at the end."""
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.005)
    monkeypatch.setattr(launch, "LOOK_SECONDS", 0.05)
    launcher = LocalLauncher(Settings(tmp_path / "home"))
    yield launcher
    launcher.end()


def _processes(launcher: LocalLauncher) -> list[psutil.Process]:
    """The guard, and below it the process that does the work and all that it started."""
    assert launcher._part is not None
    guard = psutil.Process(launcher._part.process.pid)
    return [guard, *guard.children(recursive=True)]


def _after_units(count: int, act: Callable[[], None]) -> Callable[[Event], None]:
    """A reporter that acts once, when so many units of the reading phase are done."""

    def report(event: Event) -> None:
        if event["kind"] == "progress" and event["done"] == count and not done:
            done.append(event)
            act()

    done: list[Event] = []
    return report


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_every_event_is_reported_once_and_the_process_takes_the_next_job_too(
    launcher: LocalLauncher, ingest_job: Jobs
) -> None:
    launcher.warm("ingest")
    first, second = ingest_job(), ingest_job(source={"kind": "folder", "path": "/nowhere"})
    events: list[Event] = []
    job_id = follow(launcher, first, events.append)
    assert events == [event for _, event in read_events(Path(first.folder))]
    assert (events[0]["kind"], events[-1]["kind"], events[-1]["status"]) == ("start", "end", "done")
    assert (Path(first.folder) / RESULT_FILE).exists()
    with pytest.raises(DataError, match="/nowhere is not there"):
        follow(launcher, second, events.append)
    assert launcher.is_alive(job_id)
    processes, start = _processes(launcher), time.monotonic()
    launcher.end()
    assert not launcher.is_alive(job_id)
    assert not any(process.is_running() for process in processes)
    assert time.monotonic() - start < launch.STOP_SECONDS / 2, "an idle process has nothing to save"


def test_work_that_is_killed_is_told_as_such_and_continues_to_the_same_result(
    launcher: LocalLauncher, ingest_job: Jobs, whole_content: str
) -> None:
    job = ingest_job()

    def kill() -> None:
        for process in _processes(launcher)[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    with pytest.raises(TransientError, match="died without a word"):
        follow(launcher, job, _after_units(2, kill))
    assert not (Path(job.folder) / RESULT_FILE).exists()
    events: list[Event] = []
    follow(launcher, job, events.append)
    assert any(event["kind"] == "say" and "were there already" in event["text"] for event in events)
    assert load_result(Path(job.folder)).content == whole_content


def test_an_interrupted_launcher_stops_the_work_gracefully_and_it_continues(
    launcher: LocalLauncher, ingest_job: Jobs, whole_content: str
) -> None:
    job = ingest_job()
    with pytest.raises(KeyboardInterrupt):
        follow(launcher, job, _after_units(2, _interrupt))
    *_, (_, last) = read_events(Path(job.folder))
    assert (last["kind"], last["status"]) == ("end", "stopped")
    assert not (Path(job.folder) / RESULT_FILE).exists()
    assert launcher._part is None, "nothing is left running"
    events: list[Event] = []
    follow(launcher, job, events.append)
    assert (events[0]["kind"], events[-1]["status"]) == ("start", "done")
    assert not StopFile(Path(job.folder)).requested()
    assert load_result(Path(job.folder)).content == whole_content


def test_a_guard_that_is_told_to_end_stops_the_work_gracefully(launcher: LocalLauncher, ingest_job: Jobs) -> None:
    """What a guard sends when its owner is gone: the stage saves before it leaves."""
    job, start = ingest_job(), time.monotonic()
    with pytest.raises(Stopped, match="units are finished and kept"):
        follow(launcher, job, _after_units(2, lambda: _processes(launcher)[0].terminate()))
    launcher.end()
    assert time.monotonic() - start < launch.STOP_SECONDS / 2, "it waited for more work after it had been told to stop"


class DeadJob:
    """A launcher whose job wrote half an event and died."""

    def start(self, job: Job) -> str:
        """Write the half event."""
        with open(Path(job.folder) / EVENTS_FILE, "a") as log:
            log.write('{"kind": "progr')
        return "dead"

    def is_alive(self, job_id: str) -> bool:
        """False."""
        return False

    def kill(self, job_id: str) -> None:
        """Nothing is left to kill."""


def test_a_job_that_died_in_the_middle_of_an_event_is_not_waited_for(
    ingest_job: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "LOOK_SECONDS", 0.01)
    with pytest.raises(TransientError, match="dead died without a word"):
        follow(DeadJob(), ingest_job(), lambda event: None)


class LastWords(DeadJob):
    """A launcher whose job said its last word just before it was seen dead."""

    def is_alive(self, job_id: str) -> bool:
        """False, after the last word."""
        with open(self.log, "a") as log:
            log.write('\n{"kind": "end", "status": "done"}\n')
        return False

    def start(self, job: Job) -> str:
        """Remember where the log is."""
        self.log = Path(job.folder) / EVENTS_FILE
        return super().start(job)


def test_the_last_word_of_a_dead_job_is_heard(ingest_job: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "LOOK_SECONDS", 0.01)
    assert follow(LastWords(), ingest_job(), lambda event: None) == "dead"


def test_a_head_whose_agent_is_not_there_yet_is_asked_again() -> None:
    answers = iter([RuntimeError(f"Request failed: {NO_AGENT} to submit job"), "job-1"])

    def submit() -> str:
        answer = next(answers)
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    assert _patiently(submit) == "job-1"


def test_what_ray_refuses_is_not_asked_again() -> None:
    def submit() -> str:
        raise RuntimeError("the job exists")

    with pytest.raises(TransientError, match="Ray did not take the job: the job exists"):
        _patiently(submit)
