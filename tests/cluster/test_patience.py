"""A training that was asked to stop is waited for as long as it goes on, however slow its steps are.

The clock is ours: nobody waits for seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster import launch, patience, stopping
from cluster.job import Job
from cluster.launch import Event, follow
from cluster.settings import Settings
from cluster.stop import StopFile
from foundation_core.errors import TransientError
from foundation_core.events import EventLog
from foundation_core.specs import CheckpointSpec, FinetuneSpec, PretrainSpec, Spec

Script = Sequence[tuple[float, str, Mapping[str, Any]]]
"""What a job says, by the seconds since it was asked to stop."""
STEP: Mapping[str, Any] = {"done": 13, "total": 40, "unit": "steps", "note": ""}
SAVE: Mapping[str, Any] = {"step": 13, "values": {"checkpoint/stall_seconds": 9.0}}
VALIDATION: Mapping[str, Any] = {"step": 12, "values": {"validation/seconds": 200.0}}
MACHINE: Mapping[str, Any] = {"step": 1, "values": {"system/disk_usage_percentage": 50.0}}
END: Mapping[str, Any] = {"status": "stopped", "error": {"kind": "Stopped", "found": "saved"}}
MACHINE_ALONE: Script = [(seconds, "metrics", MACHINE) for seconds in range(0, 2000, 5)]

SAVES: Mapping[str, Script] = {
    "a step of 49 s": [(48.9, "progress", STEP), (57.1, "metrics", SAVE), (59.0, "end", END)],
    "and a slow disk": [(48.9, "progress", STEP), (57.1, "metrics", SAVE), (350.0, "end", END)],
    "and a validation before it": [
        (200.0, "metrics", VALIDATION), (390.0, "progress", STEP), (600.0, "metrics", SAVE), (603.0, "end", END),
    ],
}  # fmt: skip


class Clock:
    """Seconds that pass only when somebody sleeps; then the job says what it has to say."""

    def __init__(self, folder: Path, script: Script) -> None:
        self.now, self.asked = 1000.0, 0.0
        self._stop, self._log, self._script = StopFile(folder), EventLog(folder), list(script)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if self._stop.requested() and not self.asked:
            self.asked = self.now
        self.now += seconds
        while self.asked and self._script and self.since >= self._script[0][0]:
            _, kind, fields = self._script.pop(0)
            self._log.write(kind, **fields)

    @property
    def since(self) -> float:
        """Seconds since the job was asked to stop."""
        return self.now - self.asked


class SlowJob:
    """A launcher whose job is in the middle of a step and lives until it is killed."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.killed = clock, 0.0

    def start(self, job: Job) -> str:
        """Be in the middle of it."""
        EventLog(Path(job.folder)).write("progress", **{**STEP, "done": 12})
        return "slow"

    def is_alive(self, job_id: str) -> bool:
        """True."""
        return True

    def kill(self, job_id: str) -> None:
        """Remember when."""
        self.killed = self.clock.since


def _clock(folder: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(folder, script)
    for module in (launch, patience, stopping):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(launch, "POLL_SECONDS", 1.0)
    monkeypatch.setattr(stopping, "POLL_SECONDS", 1.0)
    return clock


def _job(folder: Path, spec: Spec, stage: str = "pretrain") -> Job:
    job = Job(stage, spec.model_dump(mode="json"), {}, str(folder), {"digest": "0" * 64, "parts": {}})
    job.write()
    return job


def _interrupted(job: Job, script: Script, monkeypatch: pytest.MonkeyPatch) -> tuple[float, list[Event]]:
    """The seconds after which a command that was interrupted killed its job, and what it had heard until then."""
    launcher, heard = SlowJob(_clock(Path(job.folder), script, monkeypatch)), list[Event]()

    def report(event: Event) -> None:
        heard.append(event)
        if event["kind"] == "progress" and event["done"] == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(launcher, job, report)
    return launcher.killed, heard


@pytest.mark.parametrize("name", SAVES)
def test_a_slow_training_is_waited_for_until_it_has_saved(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, heard = _interrupted(_job(tmp_path, PretrainSpec()), SAVES[name], monkeypatch)
    assert heard[-1]["kind"] == "end"
    assert killed >= SAVES[name][-1][0] > patience.STOP_SECONDS


@pytest.mark.parametrize(
    ("spec", "script", "seconds"),
    [
        (PretrainSpec(), [], 300),
        (PretrainSpec(), MACHINE_ALONE, 300),
        (PretrainSpec(), [(48.9, "progress", STEP)], 49 + 300),
        (PretrainSpec(checkpoints=CheckpointSpec(stop_seconds=20.0)), SAVES["a step of 49 s"], 20),
        (PretrainSpec(checkpoints=CheckpointSpec(store="memory://run")), [], 300 + 600),
        (FinetuneSpec(), SAVES["a step of 49 s"], 45),
    ],
    ids=["silent", "the machine alone", "silent behind its step", "as said", "store", "no training"],
)
def test_one_that_is_silent_for_too_long_is_killed(
    spec: Spec, script: Script, seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control to the test above."""
    stage = "pretrain" if isinstance(spec, PretrainSpec) else "finetune"
    killed, heard = _interrupted(_job(tmp_path, spec, stage), script, monkeypatch)
    assert seconds <= killed <= seconds + 2
    assert heard[-1]["kind"] != "end"


@pytest.mark.parametrize("name", SAVES)
def test_who_asks_from_beside_waits_as_long(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _job(tmp_path, PretrainSpec())
    clock = _clock(tmp_path, SAVES[name], monkeypatch)
    monkeypatch.setattr(stopping, "is_running", lambda *_: True)
    assert stopping.stop_stage(tmp_path, Settings(tmp_path))["status"] == "stopped"
    assert clock.since >= SAVES[name][-1][0]


def test_who_asks_from_beside_says_how_long_it_was_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: and a folder without a job, where a stage may only just begin, has the time of a short stage."""
    clock = _clock(tmp_path, MACHINE_ALONE, monkeypatch)
    monkeypatch.setattr(stopping, "is_running", lambda *_: True)
    with pytest.raises(TransientError, match="was asked to stop and silent for 45 s"):
        stopping.stop_stage(tmp_path, Settings(tmp_path))
    assert 45 <= clock.since <= 47
    _job(tmp_path, PretrainSpec())
    with pytest.raises(TransientError, match="was asked to stop and silent for 300 s"):
        stopping.stop_stage(tmp_path, Settings(tmp_path))
