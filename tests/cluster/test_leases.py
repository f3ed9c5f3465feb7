"""One owner per piece of work, and none that is dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cluster import leases
from cluster.leases import LEASE_FILE, is_held, lease

HOLDS_FOR_EVER = """
import sys
from pathlib import Path
from cluster.leases import lease
with lease(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def _write_lease(folder: Path, *, host: str, pid: int, age_seconds: float = 0.0) -> Path:
    path = folder / LEASE_FILE
    path.write_text(json.dumps({"owner": "somebody", "host": host, "pid": pid}))
    os.utime(path, (time.time() - age_seconds, time.time() - age_seconds))
    return path


def test_of_two_takers_one_wins_and_the_other_is_told_at_once(tmp_path: Path) -> None:
    with lease(tmp_path) as first, lease(tmp_path) as second:
        assert (first, second) == (True, False)
        assert is_held(tmp_path)


def test_a_released_lease_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with lease(tmp_path / "new") as mine:
            assert mine
        assert not is_held(tmp_path / "new")


def test_a_lease_is_released_by_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lease(tmp_path):
        raise KeyboardInterrupt
    assert not is_held(tmp_path)


def test_who_was_refused_does_not_release_it(tmp_path: Path) -> None:
    with lease(tmp_path):
        with lease(tmp_path):
            pass
        assert is_held(tmp_path)


def test_a_killed_owner_holds_nothing(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLDS_FOR_EVER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"True\n"
    assert is_held(tmp_path)
    with lease(tmp_path) as mine:
        assert not mine
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert not is_held(tmp_path)
    with lease(tmp_path) as mine:
        assert mine


def test_an_owner_on_another_host_is_believed_until_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_such_pid = 2**22 + 1
    path = _write_lease(tmp_path, host="elsewhere", pid=no_such_pid)
    assert is_held(tmp_path)
    monkeypatch.setattr(leases, "STALE_SECONDS", 5.0)
    os.utime(path, (time.time() - 6, time.time() - 6))
    assert not is_held(tmp_path)
    with lease(tmp_path) as mine:
        assert mine
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_lease_that_its_taker_could_not_finish_writing_goes_stale(tmp_path: Path) -> None:
    path = tmp_path / LEASE_FILE
    path.write_text('{"owner": "som')
    assert is_held(tmp_path)
    os.utime(path, (0, 0))
    with lease(tmp_path) as mine:
        assert mine


def test_the_owner_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.01)
    path = tmp_path / LEASE_FILE
    with lease(tmp_path):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        assert time.time() - path.stat().st_mtime < 10


def test_a_sleeper_neither_keeps_alive_nor_removes_the_lease_of_who_took_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.01)
    with lease(tmp_path):
        path = _write_lease(tmp_path, host="elsewhere", pid=1, age_seconds=20)
        before = path.stat().st_mtime
        threading.Event().wait(0.1)  # ten heartbeats
        assert path.stat().st_mtime == before
    assert json.loads(path.read_text())["owner"] == "somebody"


def test_of_many_who_find_a_dead_owner_one_takes_its_place(tmp_path: Path) -> None:
    """Removing and taking are one act: else the slow remove what the fast just took."""
    takers = 8
    for number in range(25):
        folder = tmp_path / str(number)
        folder.mkdir()
        _write_lease(folder, host="elsewhere", pid=1, age_seconds=1000)
        together, all_tried = threading.Barrier(takers), threading.Barrier(takers)
        won: list[bool] = []

        def take(
            folder: Path = folder,
            together: threading.Barrier = together,
            all_tried: threading.Barrier = all_tried,
            won: list[bool] = won,
        ) -> None:
            together.wait()
            with lease(folder) as mine:
                won.append(mine)
                all_tried.wait()

        threads = [threading.Thread(target=take) for _ in range(takers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == [False] * (takers - 1) + [True]
