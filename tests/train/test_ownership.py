"""A folder of checkpoints has one writer: none beside a living one, one after a dead one; and that one stops."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from foundation_core.data.stores.depot import Depot
from foundation_core.errors import SecondWriterError
from foundation_core.train.ownership import MARK_FILE, Ownership, process_start

HOLD = """
import sys
from pathlib import Path
from foundation_core.data.stores.depot import Depot
from foundation_core.train.ownership import Ownership
Ownership(Depot(Path(sys.argv[1]))).take()
print("taken", flush=True)
sys.stdin.read()
"""


def _edit_mark(folder: Path, **fields: Any) -> None:
    path = folder / MARK_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _taken(folder: Path, **arguments: float) -> Ownership:
    mine = Ownership(Depot(folder), **arguments)
    mine.take()
    return mine


def test_a_second_process_is_refused_while_the_first_lives_and_not_after(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "taken\n"
    with pytest.raises(SecondWriterError, match=f"is being written by process {first.pid} on "):
        Ownership(Depot(tmp_path)).take()
    first.kill()
    first.communicate()
    assert (tmp_path / MARK_FILE).exists(), "a killed one leaves its mark"
    mine = _taken(tmp_path)
    mine.check()
    mine.release()
    assert not (tmp_path / MARK_FILE).exists()


def test_a_second_writer_of_the_same_process_is_refused_too(tmp_path: Path) -> None:
    mine = _taken(tmp_path)
    with pytest.raises(SecondWriterError):
        Ownership(Depot(tmp_path)).take()
    mine.release()
    _taken(tmp_path).release()


def test_a_process_number_that_is_used_again_is_not_the_writer(tmp_path: Path) -> None:
    mine = _taken(tmp_path)
    started = process_start(json.loads((tmp_path / MARK_FILE).read_text())["pid"])
    assert started is not None
    _edit_mark(tmp_path, started=started - 1, owner="another")
    _taken(tmp_path).release()
    mine.release()


def test_half_a_mark_is_no_writer(tmp_path: Path) -> None:
    (tmp_path / MARK_FILE).write_text('{"owner": "ab')
    _taken(tmp_path, patience_seconds=0.05).release()


def test_a_mark_that_is_half_written_says_nothing_of_a_second_writer(tmp_path: Path) -> None:
    mine = _taken(tmp_path)
    whole = (tmp_path / MARK_FILE).read_text()
    for half in ("", whole[:9]):
        (tmp_path / MARK_FILE).write_text(half)
        with pytest.raises(OSError, match="cannot be read"):
            mine.check()
    (tmp_path / MARK_FILE).write_text(whole)
    mine.check()
    mine.release()


def test_of_another_machine_only_a_mark_that_changes_is_alive(tmp_path: Path) -> None:
    there = _taken(tmp_path, beat_seconds=0.01)
    elsewhere = Ownership(Depot(tmp_path), patience_seconds=5.0, grace_seconds=0.0)
    elsewhere.machine = "another machine"
    with pytest.raises(SecondWriterError):
        elsewhere.take()
    there._ended.set()
    there._heart.join()
    mine = Ownership(Depot(tmp_path), patience_seconds=0.1)
    mine.machine = "another machine"
    mine.take()
    mine.check()
    with pytest.raises(SecondWriterError, match="another process writes to"):
        there.check()
    there.release()
    mine.check()
    mine.release()


def test_a_writer_elsewhere_that_was_cut_off_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = _taken(tmp_path, beat_seconds=0.01)
    mine = Ownership(Depot(tmp_path), patience_seconds=1.0, grace_seconds=600.0)
    mine.machine = "another machine"
    lives, looks = mine._lives, list[bool]()

    def looked(found: dict[str, Any]) -> bool:
        looks.append(lives(found))
        there._ended.set()  # its watchdog ends it
        there._heart.join()
        return looks[-1]

    monkeypatch.setattr(mine, "_lives", looked)
    mine.take()
    mine.check()
    assert looks == [True, False]
    mine.release()


def test_a_succeeded_writer_does_not_bring_its_mark_back(tmp_path: Path) -> None:
    mine = _taken(tmp_path, beat_seconds=0.01)
    _edit_mark(tmp_path, owner="another")
    mine._heart.join(timeout=30)
    assert not mine._heart.is_alive(), "its heart ends by itself"
    assert json.loads((tmp_path / MARK_FILE).read_text())["owner"] == "another"
    mine.release()
    assert (tmp_path / MARK_FILE).exists(), "and it does not remove the other's"


def test_it_beats(tmp_path: Path) -> None:
    mine = _taken(tmp_path, beat_seconds=0.01)
    beaten = threading.Event()
    while not beaten.wait(0.01):
        if json.loads((tmp_path / MARK_FILE).read_text())["beats"] > 2:
            beaten.set()
    mine.release()
