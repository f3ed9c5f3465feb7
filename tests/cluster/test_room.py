"""As many workers begin as there is room for, between the least and the most; what is too small is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import room
from cluster.room import Room, wait_for_room
from cluster.stop import StopFile
from foundation_core.errors import FoundationError, Requeued, SetupError, Stopped, TransientError
from foundation_core.events import read_events
from foundation_core.specs import PretrainSpec


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> list[Room]:
    """What the cluster says, look after look; the last is said for ever."""
    said: list[Room] = []
    monkeypatch.setattr(room, "look_for_room", lambda threads: said.pop(0) if len(said) > 1 else said[0])
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.001)
    return said


def _cluster(free: int, possible: int) -> Room:
    return Room(free, possible, free, possible)


@given(least=st.integers(1, 6), more=st.integers(0, 6), possible=st.integers(1, 12))
def test_as_many_begin_as_fit_between_the_least_and_the_most(least: int, more: int, possible: int) -> None:
    spec = PretrainSpec(workers=least + more, least_workers=least)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "look_for_room", lambda threads: _cluster(possible, possible))
        if possible < least:
            with pytest.raises(SetupError, match=f"pretrain wants {least} workers"):
                wait_for_room(spec, Path("/nowhere"), is_first=True, preempted=False)
        else:
            found = wait_for_room(spec, Path("/nowhere"), is_first=True, preempted=False)
            assert found == min(spec.workers, possible)


def test_those_at_work_are_waited_for_and_that_is_said_once(tmp_path: Path, rooms: list[Room]) -> None:
    rooms += [_cluster(0, 2), _cluster(1, 2), _cluster(1, 2), _cluster(2, 2)]
    assert wait_for_room(PretrainSpec(workers=2), tmp_path, is_first=True, preempted=False) == 2
    said = [event["text"] for _, event in read_events(tmp_path) if event["kind"] == "say"]
    assert said == ["waiting for 2 CPUs: 0 of 2 are free"]


def test_fewer_begin_once_more_do_not_come_free(
    tmp_path: Path, rooms: list[Room], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SETTLE_SECONDS", 0.01)
    rooms += [_cluster(0, 4), _cluster(2, 4)]
    spec = PretrainSpec(workers=4, least_workers=1)
    assert wait_for_room(spec, tmp_path, is_first=False, preempted=False) == 2


@pytest.mark.parametrize(
    ("preempted", "kind", "words"),
    [(False, TransientError, "lost a node"), (True, Requeued, "gave a node back")],
)
def test_a_cluster_that_became_too_small_ends_the_job_by_what_made_it_so(
    tmp_path: Path, rooms: list[Room], preempted: bool, kind: type[FoundationError], words: str
) -> None:
    rooms += [_cluster(1, 1)]
    with pytest.raises(kind, match=f"the cluster {words}: the workers need 2 CPUs, and 1 are left"):
        wait_for_room(PretrainSpec(workers=2), tmp_path, is_first=False, preempted=preempted)


def test_who_waits_hears_a_stop(tmp_path: Path, rooms: list[Room]) -> None:
    rooms += [_cluster(0, 2)]
    StopFile(tmp_path).request()
    with pytest.raises(Stopped):
        wait_for_room(PretrainSpec(workers=2), tmp_path, is_first=True, preempted=False)
