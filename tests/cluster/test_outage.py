"""A Ray that goes away under a job is waited for, for a time, and the job goes on on the next one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster import launch, outage, session
from cluster.job import Job
from cluster.launch import Event, LocalLauncher, RayLauncher
from cluster.outage import AWAY, follow_through_outages
from cluster.session import Session
from cluster.settings import Settings
from cluster.stack import Record, Stack
from cluster.stop import RequeueInterrupt, StopFile
from foundation_core.errors import ConfigError, FoundationError, Requeued, SetupError, Stopped, TransientError
from foundation_core.events import EventLog, read_events
from foundation_core.failures import FAILURES
from foundation_core.specs import PipelineSpec, PretrainSpec

Life = Callable[[EventLog], bool]
"""What a job does on one head; whether the head lives after it."""
UP = "`foundation up` brings it back"


def _to_step(*steps: int, then_head: bool = False) -> Life:
    def life(log: EventLog) -> bool:
        for step in steps:
            log.progress(step, 100, "steps")
        return then_head

    return life


def _to_the_end(log: EventLog) -> bool:
    log.progress(100, 100, "steps")
    log.write("end", status="done")
    return True


def _says(error: FoundationError, *, then_head: bool) -> Life:
    def life(log: EventLog) -> bool:
        log.write("end", status="failed", error=error.to_json())
        return then_head

    return life


@dataclass
class Heads:
    """A cluster whose head may die with each job, and answers again after some looks."""

    lives: list[Life]
    looks: int = 3
    act: Callable[[], None] = lambda: None
    address: str = "http://127.0.0.1:8265"
    started: int = 0
    up: bool = True
    cpus_asked: list[int] = field(default_factory=list)

    def start(self, job: Job) -> str:
        """Live the next life."""
        self.started += 1
        self.up = self.lives.pop(0)(EventLog(Path(job.folder)))
        return f"job-{self.started}"

    def is_alive(self, job_id: str) -> bool:
        """False: each job has done what it does when it is started."""
        return False

    def kill(self, job_id: str) -> None:
        """Nothing is left to kill."""

    def is_gone(self) -> bool:
        """Whether the head died with the job."""
        return not self.up

    def has_cpus(self, count: int) -> bool:
        """Whether it is up again."""
        self.cpus_asked.append(count)
        self.act()
        self.up = len(self.cpus_asked) >= self.looks
        return self.up


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "LOOK_SECONDS", 0.001)
    for name, seconds in {"POLL_SECONDS": 0.001, "LOOK_SECONDS": 0.001, "CONFIRM_SECONDS": 0.01}.items():
        monkeypatch.setattr(outage, name, seconds)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    spec = PretrainSpec(workers=3, threads_per_worker=2).model_dump(mode="json")
    return Job("pretrain", spec, {}, str(tmp_path / "stage"), {"digest": "0" * 64, "parts": {}})


def _kinds(job: Job, *kinds: str) -> list[Event]:
    return [event for _, event in read_events(Path(job.folder)) if event["kind"] in kinds]


def test_a_job_goes_on_on_the_next_head_and_both_ends_of_the_outage_are_told(job: Job) -> None:
    heads, events = Heads([_to_step(1, 45), _to_the_end]), list[Event]()
    assert follow_through_outages(heads, job, events.append, UP) == "job-2"
    away, back = _kinds(job, "failure", "recovered")
    assert (away["failure"], away["step"], away["budget_left"]) == (AWAY, 45, FAILURES[AWAY].budget - 1)
    assert away["what"] == f"Ray at {heads.address} is away: {UP}; waiting 10 minutes"
    assert (back["failure"], back["step"]) == (AWAY, 100)
    assert back["seconds"] >= 0
    assert away in events, "who watches reads it at once"
    assert heads.cpus_asked == [6] * heads.looks, "a head without the nodes that the workers need is no use yet"


def test_a_job_that_dies_while_ray_lives_is_not_started_again(job: Job) -> None:
    heads = Heads([_to_step(45, then_head=True), _to_the_end])
    with pytest.raises(TransientError, match="job-1 died without a word"):
        follow_through_outages(heads, job, lambda event: None, UP)
    assert (heads.started, _kinds(job, "failure")) == (1, [])


def test_a_head_that_goes_a_moment_after_the_job_counts_as_gone(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([False, False, True])
    heads = Heads([_to_step(45), _to_the_end])
    monkeypatch.setattr(heads, "is_gone", lambda: next(answers))
    monkeypatch.setattr(outage, "CONFIRM_SECONDS", 60.0)
    assert follow_through_outages(heads, job, lambda event: None, UP) == "job-2"


@pytest.mark.parametrize(
    "error", [FoundationError("RayError: the head does not answer"), TransientError("the workers lost each other")]
)
def test_what_a_job_says_while_its_head_breaks_away_is_no_cause(job: Job, error: FoundationError) -> None:
    heads = Heads([_says(error, then_head=False), _to_the_end])
    assert follow_through_outages(heads, job, lambda event: None, UP) == "job-2"


def test_an_error_with_a_cause_of_its_own_is_not_blamed_on_ray(job: Job) -> None:
    heads = Heads([_says(ConfigError("this cannot be"), then_head=False), _to_the_end])
    with pytest.raises(ConfigError, match="this cannot be"):
        follow_through_outages(heads, job, lambda event: None, UP)
    assert (heads.started, _kinds(job, "failure")) == (1, [])


def test_when_the_patience_is_over_the_run_fails_with_what_was_wrong_first(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "PATIENCE_SECONDS", 0.05)
    heads = Heads([_to_step(45), _to_the_end], looks=10**9)
    with pytest.raises(TransientError, match="job-1 died without a word") as raised:
        follow_through_outages(heads, job, lambda event: None, UP)
    assert raised.value.fix == "run the same command again: it continues from what was saved"
    assert heads.started == 1


def test_a_ray_that_dies_each_time_before_there_was_progress_is_given_up(job: Job) -> None:
    heads = Heads([_to_step(45), *(_to_step(41) for _ in range(9))])
    with pytest.raises(TransientError, match=r"died without a word; ray_away came 4 times in a row") as raised:
        follow_through_outages(heads, job, lambda event: None, UP)
    assert raised.value.fix == FAILURES[AWAY].to_do
    assert heads.started == 1 + 3
    assert [event["budget_left"] for event in _kinds(job, "failure")] == [2, 1, 0, 0]


def test_outages_with_progress_between_them_are_borne_however_many(job: Job) -> None:
    heads = Heads([*(_to_step(10 * outage) for outage in range(1, 9)), _to_the_end])
    follow_through_outages(heads, job, lambda event: None, UP)
    assert heads.started == 9


@pytest.mark.parametrize(("requeue", "kind"), [(False, Stopped), (True, Requeued)])
def test_who_asks_for_the_end_meanwhile_gets_it_at_once(job: Job, requeue: bool, kind: type[Stopped]) -> None:
    heads = Heads([_to_step(45), _to_the_end], looks=10**9)
    heads.act = lambda: StopFile(Path(job.folder)).request(requeue=requeue)
    with pytest.raises(Stopped, match="stopped while Ray was away") as raised:
        follow_through_outages(heads, job, lambda event: None, UP)
    assert (type(raised.value), heads.started, len(heads.cpus_asked)) == (kind, 1, 1)
    (end,) = _kinds(job, "end")
    assert end["status"] == "stopped", "`foundation stop` waits for that word"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RequeueInterrupt])
def test_an_interruption_of_the_command_meanwhile_ends_it_at_once(job: Job, interruption: type[BaseException]) -> None:
    def interrupt() -> None:
        raise interruption

    heads = Heads([_to_step(45), _to_the_end], looks=10**9, act=interrupt)
    with pytest.raises(interruption):
        follow_through_outages(heads, job, lambda event: None, UP)
    assert len(heads.cpus_asked) == 1


def test_a_ray_that_was_gone_before_the_job_could_be_started_is_waited_for_too(job: Job) -> None:
    def refuse(log: EventLog) -> bool:
        heads.up = False
        raise SetupError("no Ray cluster answers at http://127.0.0.1:8265")

    heads = Heads([refuse, _to_the_end])
    assert follow_through_outages(heads, job, lambda event: None, UP) == "job-2"


class Client:
    """A client of the Jobs API that knows some jobs, as long as it answers."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.error: Exception | None = None

    def list_jobs(self) -> list[Any]:
        """None."""
        return []

    def get_version(self) -> str:
        """Some version."""
        if self.error is not None:
            raise self.error
        return "2"

    def get_job_status(self, job_id: str) -> str:
        """Some status; of another head's job the error of Ray."""
        self.get_version()
        if job_id not in self.known:
            raise RuntimeError(f"Request failed with status code 404: Job {job_id} does not exist")
        return "FAILED"

    def submit_job(self, submission_id: str, **_: Any) -> str:
        """The id."""
        self.get_version()
        self.known.add(submission_id)
        return submission_id


def test_a_cluster_is_gone_that_is_silent_or_does_not_know_the_job(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    monkeypatch.setattr(launch, "connect", lambda address: client)
    monkeypatch.setattr(launch, "live_jobs", lambda address: {})
    launcher = RayLauncher("http://127.0.0.1:1")
    assert not launcher.is_gone()
    launcher.start(job)
    assert not launcher.is_gone(), "it knows how the job ended"
    client.known.clear()
    assert launcher.is_gone(), "the head is another one"
    client.error = ConnectionError("refused")
    with pytest.raises(SetupError, match="no Ray cluster answers"):
        launcher.start(job)
    assert launcher.is_gone()
    client.error = None
    assert not launcher.is_gone()
    assert not launcher.has_cpus(1), "nobody listens at that address"


@pytest.mark.parametrize(("recorded", "words"), [("http://127.0.0.1:1", UP), ("", "that cluster answers again")])
def test_the_words_name_who_can_bring_ray_back_and_an_embedded_one_is_not_waited_for(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: str, words: str
) -> None:
    told: list[str] = []

    def through_outages(launcher: Any, job: Job, report: Any, brings_back: str) -> str:
        told.append(brings_back)
        return "job"

    monkeypatch.setattr(session, "follow_through_outages", through_outages)
    monkeypatch.setattr(session, "follow", lambda launcher, job, report: "job")
    monkeypatch.setattr(launch, "connect", lambda address: Client())
    settings = Settings(tmp_path, ray_dashboard="http://127.0.0.1:1")
    Stack(settings)._write("ray", Record(url=recorded))
    launcher = RayLauncher("http://127.0.0.1:1")
    Session(PipelineSpec(), settings, "", lambda stage, event: None)._follow(launcher, job, lambda event: None)
    assert [words in each for each in told] == [True]
    for other, at in ((settings, LocalLauncher(settings)), (Settings(tmp_path), launcher)):
        Session(PipelineSpec(), other, "", lambda stage, event: None)._follow(at, job, lambda event: None)
    assert len(told) == 1
