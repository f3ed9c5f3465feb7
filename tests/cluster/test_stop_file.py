"""Requests to save and leave: files that every node sees, made by signals, each heard by whom it is for."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.stop import StopFile
from foundation_core.errors import FoundationError, Requeued, Stopped

LISTENING = """
import sys, time
from pathlib import Path
from cluster.stop import StopFile
stop = StopFile(Path(sys.argv[1]), sys.argv[2])
{listen}
print("listening", flush=True)
while not stop.requested():
    time.sleep(0.01)
"""


def _send(folder: Path, listen: str, number: signal.Signals, attempt: str = "") -> None:
    command = [sys.executable, "-c", LISTENING.format(listen=listen), str(folder), attempt]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    process.send_signal(number)
    assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGUSR2, 75)], ids=str
)
def test_a_signal_to_a_job_becomes_a_request_with_its_exit_status(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    _send(tmp_path, "stop.request_on_signals()", number)
    stop = StopFile(tmp_path)
    assert stop.end_requested()
    error = stop.ended_by(Stopped("after step 3"))
    assert (error.exit_code, error.found) == (status, "after step 3")
    stop.clear()
    assert not stop.requested()
    assert stop.ended_by(Stopped("after step 3")).exit_code == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2], ids=str)
def test_a_signal_to_a_worker_asks_its_attempt_alone_to_begin_anew(tmp_path: Path, number: signal.Signals) -> None:
    _send(tmp_path, "stop.restart_on_signals('preempted')", number, attempt="7-0")
    mine, next_one, job = StopFile(tmp_path, "7-0"), StopFile(tmp_path, "7-1"), StopFile(tmp_path)
    assert mine.requested()
    reason = mine.restart_reason()
    assert reason is not None
    assert reason.failure == "preempted"
    assert reason.what.endswith(f"got {number.name}")
    assert not mine.end_requested()
    assert not next_one.requested(), "the attempt that follows would leave at once"
    assert not job.requested()
    job.clear()
    assert not mine.requested()


def test_everybody_hears_the_request_for_the_end(tmp_path: Path) -> None:
    StopFile(tmp_path).request(requeue=True)
    attempt = StopFile(tmp_path, "7-3")
    assert attempt.requested()
    assert attempt.end_requested()
    assert attempt.restart_reason() is None


def test_the_exit_status_of_a_requeue_crosses_processes() -> None:
    error = FoundationError.from_json(Requeued("saved", fix="again").to_json())
    assert isinstance(error, Requeued)
    assert (error.exit_code, error.retryable) == (75, True)
