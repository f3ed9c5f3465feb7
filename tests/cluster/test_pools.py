"""A pool gives every result and the error of a piece as it was raised; a process that dies costs the piece in hand."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import pools
from cluster.losses import MOST_NODES, MOST_TRIES, NO_MEMORY, Cause, Loss, Tasks
from cluster.pools import ProcessPool
from foundation_core.errors import DataError, FoundationError, SetupError, TransientError
from tests.support.pieces import Noted, failed, filled, noted, refused, squared, tied


def test_every_piece_is_done_once_in_processes_of_their_own() -> None:
    found = list(ProcessPool().map(squared, range(20), workers=2))
    assert sorted(square for square, _ in found) == [number**2 for number in range(20)]
    processes = {pid for _, pid in found}
    assert os.getpid() not in processes
    assert len(processes) <= 2, "a process is used again"


def test_an_error_of_a_piece_is_raised_as_it_was() -> None:
    with pytest.raises(DataError) as caught:
        list(ProcessPool().map(refused, ["a"], workers=1))
    assert (caught.value.found, caught.value.allowed, caught.value.fix) == ("found a", "allowed", "fix")


def test_an_error_that_cannot_leave_its_process_says_what_it_was_and_where() -> None:
    with pytest.raises(FoundationError, match=r"Local: number 7 .*pieces\.py:\d+"):
        list(ProcessPool().map(failed, [7], workers=1))


def test_a_killed_process_costs_the_piece_in_hand_and_no_other(tmp_path: Path) -> None:
    """Of three at work at the same time, one is killed from outside; the test fails if the others are begun anew."""
    pieces, said = [Noted(tmp_path, number, waits=number < 3) for number in range(8)], list[str]()

    def kill_one() -> None:
        while not all(piece.tries for piece in pieces[:3]):
            pass
        os.kill(pieces[1].tries[0], signal.SIGKILL)
        while len(pieces[1].tries) < 2:
            pass
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill_one)
    killer.start()
    found = list(ProcessPool(said.append).map(noted, pieces, workers=3))
    killer.join()
    assert sorted(found) == list(range(8))
    assert [len(piece.tries) for piece in pieces] == [1, 2, 1, 1, 1, 1, 1, 1]
    assert [len(piece.ends) for piece in pieces] == [1] * 8
    assert said == ["a process was ended by SIGKILL; what it had in hand is done again: piece 1"]


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (signal.SIGSEGV, DataError, "leave it out"),
        (signal.SIGKILL, TransientError, "run the same command again"),
    ],
)
def test_what_ends_every_process_is_refused_by_its_name_and_the_signal(
    number: signal.Signals, kind: type[FoundationError], words: str, tmp_path: Path
) -> None:
    bad = Noted(tmp_path, 3, signals=(number,) * 99)
    with pytest.raises(kind) as caught:
        list(ProcessPool().map(noted, [Noted(tmp_path, 0), bad], workers=2))
    name = f"piece 3: each of the {MOST_TRIES} processes that worked on it was ended by {number.name}"
    assert caught.value.found == name
    assert words in caught.value.fix
    assert len(bad.tries) == MOST_TRIES
    once_less = Noted(tmp_path, 4, signals=(number,) * (MOST_TRIES - 1))  # the negative control
    assert list(ProcessPool().map(noted, [once_less], workers=1)) == [4]


def test_memory_that_is_not_there_is_said_in_words() -> None:
    with pytest.raises(
        SetupError, match=f"each of the {MOST_TRIES} processes that worked on it had no memory"
    ) as caught:
        list(ProcessPool().map(filled, [1 << 40], workers=1))
    assert "smaller units" in caught.value.fix


def test_a_piece_that_gets_no_memory_is_tried_again_with_one_process_fewer(tmp_path: Path) -> None:
    said, pieces = list[str](), [Noted(tmp_path, 0, denials=1), *(Noted(tmp_path, number) for number in range(1, 9))]
    assert sorted(ProcessPool(said.append).map(noted, pieces, workers=2)) == list(range(9))
    more = "; of 2 processes 1 go on, with the memory of all"
    assert said == [f"a process had no memory; what it had in hand is done again: piece 0{more}"]
    assert len(pieces[0].tries) == 2


def test_on_ray_a_task_without_memory_is_a_loss_and_no_error_of_the_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.exceptions import RayTaskError

    def gives(cause: Exception) -> None:
        def get(reference: object) -> None:
            raise RayTaskError("task", "traceback", cause)

        monkeypatch.setattr(ray, "get", get)

    gives(MemoryError("none"))
    with pytest.raises(pools._Lost) as lost:
        pools._value(None)
    assert lost.value.loss == NO_MEMORY
    gives(ValueError("another"))
    with pytest.raises(ValueError, match="another"):
        pools._value(None)


def test_a_result_that_cannot_leave_its_process_is_an_error_and_no_loss() -> None:
    said = list[str]()
    with pytest.raises((TypeError, AttributeError, FoundationError), match="pickle"):
        list(ProcessPool(said.append).map(tied, [1], workers=1))
    assert said == []


@pytest.mark.parametrize("status", [-35, -40, -63])
def test_a_signal_without_a_name_is_said_by_its_number(status: int) -> None:
    assert Loss.of_status(status, for_memory=True) == Loss(Cause.KILLED, f"was ended by signal {-status}")


def test_after_a_kill_for_memory_fewer_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes side by side are one too many; the one that is left does all the rest."""
    counts = iter([5, 6])
    monkeypatch.setattr(pools, "kernel_kills", lambda: next(counts))
    said, pieces = list[str](), [Noted(tmp_path, number) for number in range(9)]
    pieces[0] = Noted(tmp_path, 0, signals=(signal.SIGKILL,))
    assert sorted(ProcessPool(said.append).map(noted, pieces, workers=2)) == list(range(9))
    assert len(said) == 1
    assert "want of memory" in said[0]
    assert "of 2 processes 1 go on" in said[0]
    assert len({pid for piece in pieces for pid in piece.ends}) <= 2, "no process came instead"


def test_no_more_pieces_are_taken_than_processes_are_at_work() -> None:
    taken = list[int]()

    def pieces() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    for done, _ in enumerate(ProcessPool().map(squared, pieces(), workers=2), 1):
        assert len(taken) <= done + 2 * 2
        if done == 20:
            break
    assert len(taken) < 30


def test_processes_leave_with_the_work_in_hand_done_when_nobody_wants_more(tmp_path: Path) -> None:
    pieces = [Noted(tmp_path, number) for number in range(100)]
    results = ProcessPool().map(noted, pieces, workers=2)
    next(results)
    results.close()
    begun = [piece for piece in pieces if piece.tries]
    assert len(begun) < 10
    assert all(len(piece.ends) == 1 for piece in begun)
    for pid in {pid for piece in begun for pid in piece.tries}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_node_that_goes_is_hardly_the_pieces_doing() -> None:
    tasks = Tasks(["a"], lambda text: None)
    for _ in range(MOST_NODES - 1):
        task = tasks.next()
        assert task is not None
        tasks.lost(task, Loss(Cause.NODE, "went with its node"))
    task = tasks.next()
    assert task is not None
    with pytest.raises(TransientError, match=f"a: each of the {MOST_NODES} processes"):
        tasks.lost(task, Loss(Cause.NODE, "went with its node"))
