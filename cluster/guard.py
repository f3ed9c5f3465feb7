"""A guard for a process that must not outlive the one that wanted it: `python -m cluster.guard PID SECONDS -- COMMAND`.

When PID dies, or the guard gets SIGTERM, the command gets SIGTERM, some seconds to save its work, then SIGKILL, and
so does everything it started. SIGQUIT says that there is nothing to save: the seconds are not waited for. What was
started by a command that somebody killed gets SIGKILL at once: the run of a killed runner would otherwise call itself
crashed, or not, depending on the load of the machine. The guard adopts orphans (PR_SET_CHILD_SUBREAPER), so that a
daemon which detached from its parent is still found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LEAVE = (signal.SIGTERM, signal.SIGQUIT)


def guard_command(command: list[str], grace_seconds: float, owner: int | None = None) -> list[str]:
    """The command line that runs `command` under a guard tied to a process: the calling one, if not said."""
    return [sys.executable, "-m", "cluster.guard", str(owner or os.getpid()), str(grace_seconds), "--", *command]


def main(argv: list[str]) -> int:
    """Run the command until it ends, its owner dies or SIGTERM arrives; the command's exit status."""
    owner, grace_seconds, command = int(argv[0]), float(argv[1]), argv[3:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in (*_LEAVE, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # the wake-up pipe holds the number
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the owner, who will tell us
    child = subprocess.Popen(command, start_new_session=True, stdin=sys.stdin, preexec_fn=_die_with_the_guard)
    poll = select.poll()
    poll.register(read_end, select.POLLIN)
    poll.register(os.pidfd_open(child.pid), select.POLLIN)
    heard = b""
    with contextlib.suppress(ProcessLookupError):
        poll.register(os.pidfd_open(owner), select.POLLIN)
        if os.getppid() == owner or psutil.pid_exists(owner):
            heard = _wait(poll, read_end, child.pid)
    _end(child, 0.0 if signal.SIGQUIT in heard + _numbers(read_end) else grace_seconds)
    return child.wait()


def _wait(poll: select.poll, pipe: int, command: int) -> bytes:
    """Wait until the command or the owner has ended, or a signal says so; the numbers of the signals that came."""
    while all(ready == pipe for ready, _ in poll.poll()):
        heard = _numbers(pipe)
        if any(number in heard for number in _LEAVE):
            return heard
        _bury_orphans(command)
    return b""


def _bury_orphans(command: int) -> None:
    """Take the status of adopted processes that have ended: a Ray head lives for months and leaves some at each job."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != command:
            os.waitpid(ended.si_pid, 0)


def _die_with_the_guard() -> None:
    """Runs in the command's process before the command: a guard that is killed takes the command with it."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _numbers(pipe: int) -> bytes:
    """The numbers of the signals that have come since the last call."""
    with contextlib.suppress(BlockingIOError):
        return os.read(pipe, 1 << 16)
    return b""


def _end(child: subprocess.Popen[bytes], grace_seconds: float) -> None:
    deadline = time.monotonic() + grace_seconds
    status = child.poll()
    if status is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_seconds)
        child.kill()
        child.wait()  # here and not below, where its status would be lost
    if status != -signal.SIGKILL:
        _signal_all(signal.SIGTERM, max(1.0, min(3.0, deadline - time.monotonic())))
    _signal_all(signal.SIGKILL, 5.0)


def _signal_all(number: signal.Signals, patience_seconds: float) -> None:
    """Send a signal to everything below this process, adopted orphans included, and wait for their end."""
    rest = psutil.Process().children(recursive=True)
    for process in rest:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    psutil.wait_procs(rest, timeout=patience_seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
