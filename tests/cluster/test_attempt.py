"""What is noticed beside an attempt: nodes that will go, room for more workers, the first step after a failure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster import attempt
from cluster.attempt import AttemptWatch
from cluster.room import Room
from cluster.stop import Restart, StopFile
from foundation_core.events import EventLog, read_events
from foundation_core.specs import PretrainSpec

SPEC = PretrainSpec(workers=3, least_workers=1)


@dataclass
class Around:
    """A cluster as it is seen beside an attempt of two workers."""

    folder: Path
    free: int = 0
    leaving: dict[str, int] = field(default_factory=dict)
    failed: tuple[str, float] | None = None

    def __post_init__(self) -> None:
        self.log, self.stop = EventLog(self.folder), StopFile(self.folder, "7-0")
        self.watch = AttemptWatch(
            SPEC, self.folder, self.stop, 2, self.failed, lambda threads: Room(self.free, 3, self.free, 3),
            lambda: self.leaving,
        )  # fmt: skip
        for rank in range(2):
            self.log.write("rank", rank=rank, node=f"node-{rank}", host="here", pid=1)

    def step(self, step: int) -> None:
        self.log.progress(step, 10, "steps")


@pytest.fixture
def around(tmp_path: Path) -> Around:
    """An attempt that follows no failure."""
    return Around(tmp_path)


def test_a_node_that_will_go_ends_the_attempt_if_one_of_its_workers_is_there(around: Around) -> None:
    around.step(1)
    around.leaving = {"node-7": 0}
    around.watch.look()
    assert around.stop.restart_reason() is None, "nobody of ours is on that node"
    around.leaving = {"node-1": 0}
    around.watch.look()
    reason = around.stop.restart_reason()
    assert reason == Restart("preempted", "the node node-1 of worker 1 on here goes soon")
    assert not around.stop.end_requested()


def test_nobody_is_asked_to_leave_before_the_first_step(around: Around) -> None:
    around.leaving = {"node-1": 0}
    around.watch.look()
    assert around.stop.restart_reason() is None
    around.step(1)
    around.watch.look()
    assert around.stop.restart_reason() is not None


def test_room_that_stays_is_used_and_room_that_comes_and_goes_is_not(
    around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(attempt.time, "monotonic", lambda: now[0])
    around.step(1)
    for free in (1, 0, 1, 0):
        around.free = free
        now[0] += attempt.GROW_SECONDS
        around.watch.look()
    assert around.stop.restart_reason() is None
    around.free = 5
    around.watch.look()
    now[0] += attempt.GROW_SECONDS
    around.watch.look()
    assert around.stop.restart_reason() == Restart("", "there is room for 3 workers")
    said = [event["text"] for _, event in read_events(around.folder) if event["kind"] == "say"]
    assert said == ["there is room for 3 workers: saving, to go on with them"]


def test_the_first_step_after_a_failure_says_once_that_work_goes_on(tmp_path: Path) -> None:
    around = Around(tmp_path, failed=("lost_node", 0.0))
    around.watch.look()
    assert around.watch.failed is not None
    for step in (41, 42):
        around.step(step)
        around.watch.look()
    recovered = [event for _, event in read_events(tmp_path) if event["kind"] == "recovered"]
    assert [(event["failure"], event["step"]) for event in recovered] == [("lost_node", 41)]
    assert recovered[0]["seconds"] > 0
    assert around.watch.failed is None
    assert around.watch.newest_step == 42
