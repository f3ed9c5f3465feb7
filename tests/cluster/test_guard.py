"""What a guard runs does not outlive the process that wanted it, and gets its time to save."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cluster.guard import guard_command

OWNER = """
import subprocess, sys
from cluster.guard import guard_command
guard = subprocess.Popen(guard_command(["sh", "-c", sys.argv[1]], float(sys.argv[2])))
print(guard.pid, flush=True)
guard.wait()
"""

# A command with a child, a daemon that left its session and its parent, and one that does not hear SIGTERM.
FAMILY = """
echo $$ > {folder}/command
sh -c 'echo $$ > {folder}/child; while :; do sleep 1000; done' &
setsid sh -c 'sh -c "echo \\$\\$ > {folder}/daemon; while :; do sleep 1000; done" &'
setsid sh -c 'trap "" TERM; echo $$ > {folder}/deaf; while :; do sleep 1000; done' &
wait
"""
MEMBERS = ("command", "child", "daemon", "deaf")

SAVES = """
trap 'echo saved > {folder}/saved; exit 7' TERM
echo $$ > {folder}/command
while :; do sleep 0.01; done
"""


def _wait_for(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.01)


def _processes(folder: Path, names: tuple[str, ...]) -> list[psutil.Process]:
    """The processes that wrote their ids into files of those names, once all have."""
    _wait_for(lambda: all((folder / name).exists() and (folder / name).read_text().strip() for name in names))
    return [psutil.Process(int((folder / name).read_text())) for name in names]


def _family(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [*processes, *(child for process in processes for child in process.children(recursive=True))]


def _assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert alive == []


def _own(command: str, grace_seconds: float) -> tuple[subprocess.Popen[str], psutil.Process]:
    """An owner of a guard, and the guard."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, command, str(grace_seconds)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    return owner, psutil.Process(int(owner.stdout.readline()))


@pytest.mark.parametrize("last_word", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_owner_is_gone_so_is_everything_that_the_command_started(
    tmp_path: Path, last_word: signal.Signals
) -> None:
    owner, guard = _own(FAMILY.format(folder=tmp_path), grace_seconds=0.2)
    family = _family(_processes(tmp_path, MEMBERS))
    assert len({process.pid for process in family}) >= 7
    owner.send_signal(last_word)
    owner.communicate()
    _assert_gone([*family, guard])


def test_when_the_command_ends_by_itself_what_it_left_behind_ends_too(tmp_path: Path) -> None:
    leaves = FAMILY.replace("wait", "while [ ! -s {folder}/daemon -o ! -s {folder}/deaf ]; do sleep 0.01; done; exit 3")
    guard = subprocess.Popen(guard_command(["sh", "-c", leaves.format(folder=tmp_path)], 0.2))
    assert guard.wait() == 3
    for name in MEMBERS:
        assert not psutil.pid_exists(int((tmp_path / name).read_text()))


@pytest.mark.parametrize("status", ["killed", "ended"])
def test_what_a_killed_command_started_has_no_last_word(tmp_path: Path, status: str) -> None:
    (tmp_path / "saves.sh").write_text(SAVES.format(folder=tmp_path).replace("/command", "/child"))
    starts = f"echo $$ > {tmp_path}/command; sh {tmp_path}/saves.sh & until [ -e {tmp_path}/end ]; do sleep 0.01; done"
    guard = subprocess.Popen(guard_command(["sh", "-c", starts], 30.0))
    command, child = _processes(tmp_path, ("command", "child"))
    if status == "killed":
        command.kill()
    else:
        (tmp_path / "end").touch()
    guard.wait(30)
    _assert_gone([child])
    assert (tmp_path / "saved").exists() is (status == "ended")


def test_orphans_that_end_are_no_zombies_while_the_command_goes_on(tmp_path: Path) -> None:
    """A zombie has its process number still."""
    orphan = f"setsid sh -c 'sh -c \"echo \\$\\$ > {tmp_path}/orphan\" &'"
    command = f"{orphan}; echo $$ > {tmp_path}/command; exec sleep 1000"
    guard = subprocess.Popen(guard_command(["sh", "-c", command], 0.2))
    files = [tmp_path / "orphan", tmp_path / "command"]
    _wait_for(lambda: all(path.exists() and path.read_text() for path in files))
    number = int(files[0].read_text())
    _wait_for(lambda: not psutil.pid_exists(number))
    assert guard.poll() is None
    guard.terminate()
    guard.wait(30)


def test_a_guard_that_is_killed_takes_the_command_with_it(tmp_path: Path) -> None:
    owner, guard = _own(f"echo $$ > {tmp_path}/command; exec sleep 1000", grace_seconds=0.2)
    (command,) = _processes(tmp_path, ("command",))
    guard.kill()
    owner.communicate()
    _assert_gone([command])


def test_sigterm_gives_the_command_its_time_to_save_and_passes_on_its_status(tmp_path: Path) -> None:
    guard = subprocess.Popen(guard_command(["sh", "-c", SAVES.format(folder=tmp_path)], 30.0))
    _processes(tmp_path, ("command",))
    guard.terminate()
    assert guard.wait() == 7
    assert (tmp_path / "saved").exists()


def test_sigquit_says_that_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    """The control is the test of SIGTERM above: with these thousand seconds it would outlast every patience."""
    guard = subprocess.Popen(guard_command(["sh", "-c", FAMILY.format(folder=tmp_path)], 1000.0))
    family = _family(_processes(tmp_path, MEMBERS))
    guard.send_signal(signal.SIGQUIT)
    guard.wait(timeout=30)
    _assert_gone(family)


def test_a_dead_owner_gives_the_command_its_time_to_save_too(tmp_path: Path) -> None:
    owner, guard = _own(SAVES.format(folder=tmp_path), grace_seconds=30.0)
    processes = _processes(tmp_path, ("command",))
    owner.kill()
    owner.communicate()
    _assert_gone([*processes, guard])
    assert (tmp_path / "saved").exists()


def test_a_command_that_does_not_listen_is_killed_after_its_grace(tmp_path: Path) -> None:
    deaf = f"trap '' TERM; echo $$ > {tmp_path}/command; while :; do sleep 0.01; done"
    guard = subprocess.Popen(guard_command(["sh", "-c", deaf], 0.1))
    (command,) = _processes(tmp_path, ("command",))
    guard.terminate()
    _assert_gone([command])
    assert guard.wait() != 0


def test_a_terminals_ctrl_c_is_left_to_the_owner(tmp_path: Path) -> None:
    command = f"echo $$ > {tmp_path}/command; read answer; exit $answer"
    guard = subprocess.Popen(guard_command(["sh", "-c", command], 5.0), stdin=subprocess.PIPE)
    _processes(tmp_path, ("command",))
    guard.send_signal(signal.SIGINT)
    guard.communicate(b"9\n")  # it still listens: its standard input is the guard's
    assert guard.returncode == 9


def test_an_owner_that_was_gone_before_the_guard_began_counts_as_gone(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    command = guard_command(["sh", "-c", "while :; do sleep 0.01; done"], 0.1)
    assert command[3] == str(os.getpid())
    command[3] = str(gone.pid)
    assert subprocess.run(command, timeout=60).returncode != 0
