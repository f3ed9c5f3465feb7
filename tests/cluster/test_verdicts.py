"""Why an attempt ended is told from what its ranks said and from what became of those that said nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster import failures
from cluster.embedded import free_port
from cluster.failures import Fate, Place, Verdict, diagnose, kernel_kills, of_this_attempt
from cluster.ray_train import _settle
from cluster.stop import Restart, StopFile
from foundation_core.errors import (
    CheckpointError,
    DataError,
    DeviceMemoryError,
    DivergedError,
    ElsewhereError,
    FoundationError,
    LostConnectionError,
    SecondWriterError,
    ShardError,
    SpikeError,
    Stopped,
    TransientError,
    as_foundation_error,
)
from foundation_core.events import EventLog, read_events
from foundation_core.failures import FAILURES, Budgets
from tests.support.memory import starving_group

LOST = Fate(node_dead=True, words="health check failed due to missing too many heartbeats")
TAKEN = Fate(node_dead=True, preempted=True)
KILLED = Fate(exit_type="SYSTEM_ERROR", words="End of file. Some common causes include: (1) the process was killed by")
BY_KERNEL = Fate(exit_type="SYSTEM_ERROR", for_memory=True)
BY_RAY = Fate(exit_type="NODE_OUT_OF_MEMORY")
ON_PURPOSE = Fate(exit_type="INTENDED_SYSTEM_EXIT", words="its placement group was removed")
BROKEN = LostConnectionError("an exchange with the other ranks broke off: Connection closed by peer [127.0.0.1]:6560")
FAULT = as_foundation_error(KeyError("a mistake in the program"))


def _heard(
    ranks: int, raised: Mapping[int, FoundationError] | None = None, *more: dict[str, Any]
) -> list[dict[str, Any]]:
    began = [
        {"kind": "rank", "rank": rank, "node": f"node-{rank}", "host": "here", "pid": 100 + rank, "kernel_kills": 0}
        for rank in range(ranks)
    ]
    said = [{"kind": "raised", "rank": rank, "error": error.to_json()} for rank, error in (raised or {}).items()]
    return [*began, *more, *said]


def _verdict(heard: list[dict[str, Any]], fates: Mapping[int, Fate] | None = None, workers: int = 2) -> Verdict:
    return diagnose(heard, workers, lambda place: (fates or {}).get(place.rank, ON_PURPOSE), "no room")


@pytest.mark.parametrize(
    ("fate", "failure", "words"),
    [
        (LOST, "lost_node", "node of worker 1 (process 101 on here, node node-1) is lost: health check failed"),
        (TAKEN, "preempted", "was taken away, as had been said"),
        (KILLED, "killed_worker", "worker 1 (process 101 on here, node node-1) was killed: End of file"),
        (BY_KERNEL, "host_memory", "the kernel ended worker 1"),
        (BY_RAY, "host_memory", "Ray's memory monitor ended worker 1"),
    ],
)
def test_the_silent_worker_decides_whatever_those_say_that_waited_for_it(fate: Fate, failure: str, words: str) -> None:
    for raised in ({}, {0: BROKEN}):
        verdict = _verdict(_heard(2, raised), {1: fate})
        assert verdict.failure == failure
        assert words in verdict.what
        assert verdict.error is None
        assert verdict.facts["rank"] == 1


def test_a_node_that_was_announced_to_go_counts_before_the_workers_that_died_with_it() -> None:
    fates = {0: KILLED, 1: BY_KERNEL, 2: LOST, 3: TAKEN}
    order = []
    while fates:
        verdict = _verdict(_heard(4), fates, workers=4)
        order.append(verdict.failure)
        del fates[verdict.facts["rank"]]
    assert order == ["preempted", "lost_node", "host_memory", "killed_worker"]


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (DataError("there is nothing to predict"), "user_error"),
        (ShardError("shard-3 is damaged"), "corrupt_shard"),
        (CheckpointError("rank-0 differs"), "corrupt_checkpoint"),
        (DivergedError("the gradient norm is nan"), "persistent_nan"),
        (TransientError("the store did not give shard-3"), "storage_away"),
        (SecondWriterError("the folder is being written by process 7"), "second_writer"),
        (DeviceMemoryError("the memory of rank 1 is full"), "device_memory"),
    ],
)
def test_what_a_rank_raised_on_purpose_is_the_cause_and_is_not_tried_again(
    error: FoundationError, failure: str
) -> None:
    verdict = _verdict(_heard(2, {0: BROKEN, 1: error}), {0: KILLED})
    assert (verdict.failure, type(verdict.error)) == (failure, type(error))


def test_a_fault_of_the_program_counts_only_if_every_worker_could_speak() -> None:
    for raised in ({0: FAULT, 1: FAULT}, {0: BROKEN, 1: FAULT}):
        verdict = _verdict(_heard(2, raised))
        assert (verdict.failure, verdict.facts["rank"]) == (
            "user_error",
            min(r for r, e in raised.items() if e is FAULT),
        )
        assert "a mistake in the program" in verdict.what
    alone = _verdict(_heard(2, {0: FAULT}))
    assert (alone.failure, alone.error) == ("lost_connection", None)


@pytest.mark.parametrize("error", [FAULT, SecondWriterError("the store is another's"), TransientError("it is away")])
def test_who_left_because_another_failed_is_not_asked_why(error: FoundationError) -> None:
    elsewhere = ElsewhereError("another worker failed with its checkpoint: its own error says at what")
    verdict = _verdict(_heard(2, {0: elsewhere, 1: error}))
    assert (verdict.facts["rank"], verdict.what, type(verdict.error)) == (1, error.found, type(error))


def test_ranks_that_all_say_that_their_connection_broke_lost_each_other(tmp_path: Path) -> None:
    for raised in ({0: BROKEN, 1: BROKEN}, {0: BROKEN}):
        verdict = _verdict(_heard(2, raised))
        assert (verdict.failure, verdict.error) == ("lost_connection", None)
        assert "Connection closed by peer" in verdict.what
    budget = FAILURES["lost_connection"].budget
    assert budget is not None
    both = _verdict(_heard(2, {0: BROKEN, 1: BROKEN}))
    assert len(_settled(tmp_path, both, budget)) == budget, "it is tried again"


TWO_RANKS = """
import os, socket, sys
import torch, torch.distributed as dist
from foundation_core.errors import as_foundation_error
from foundation_core.train.ranks import lost_connection
dist.init_process_group("gloo")
dist.all_reduce(torch.ones(9))
if dist.get_rank() == 0:
    for name in os.listdir("/proc/self/fd"):
        try:
            found = socket.socket(fileno=os.dup(int(name)))
            if found.type == socket.SOCK_STREAM and not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
try:
    for _ in range(3):
        dist.all_reduce(torch.ones(9))
except Exception as error:
    print(type(lost_connection(error) or as_foundation_error(error)).__name__, flush=True)
assert lost_connection(RuntimeError("shapes do not fit")) is None
os._exit(0)
"""


def test_a_broken_connection_of_real_ranks_is_known_on_both_sides_and_no_other_error_is() -> None:
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    common["OMP_NUM_THREADS"] = "1"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_RANKS], env={**common, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        assert [rank.communicate(timeout=120)[0].strip() for rank in ranks] == ["LostConnectionError"] * 2
    finally:
        for rank in ranks:
            rank.kill()


def test_who_was_asked_to_leave_did_not_fail() -> None:
    verdict = _verdict(_heard(2, {0: Stopped("stopped after step 3"), 1: BROKEN}), {1: KILLED})
    assert (verdict.failure, type(verdict.error)) == ("", Stopped)


def test_what_a_watchdog_told_before_it_ended_the_attempt_is_believed() -> None:
    hang = {"kind": "failure", "failure": "hang", "what": "rank 1 does not move"}
    straggler = {"kind": "failure", "failure": "straggler", "what": "rank 1 is slow"}
    verdict = _verdict(_heard(2, {}, hang), {1: KILLED})
    assert (verdict.failure, verdict.is_told) == ("hang", True)
    assert _verdict(_heard(2, {}, straggler), {1: KILLED}).failure == "killed_worker"


def test_a_failure_that_was_survived_is_not_the_verdict_of_a_later_death() -> None:
    away = {"kind": "failure", "failure": "copies_away", "what": "the store did not take the checkpoint of step 8"}
    back = {"kind": "recovered", "failure": "copies_away", "step": 8, "seconds": 2.0}
    verdict = _verdict(_heard(2, {}, away, back), {1: TAKEN})
    assert (verdict.failure, verdict.is_told) == ("preempted", False)
    redone = {"kind": "failure", "failure": "persistent_nan", "what": "step 3: its samples are left out"}
    over = {"kind": "recovered", "failure": "persistent_nan", "step": 3, "seconds": 2.0}
    hopeless = {rank: DivergedError("no validation was finite") for rank in range(2)}
    assert not _verdict(_heard(2, hopeless, redone, over)).is_told
    assert _verdict(_heard(2, hopeless, redone)).is_told


def test_a_command_that_follows_a_running_job_hides_nothing_of_its_attempt(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.write("attempt", number=0, workers=1)
    log.write("rank", rank=0, node="node-0", host="here", pid=os.getpid(), kernel_kills=0)
    log.write("start", key="k")
    assert [event["kind"] for event in of_this_attempt(tmp_path)] == ["attempt", "rank", "start"]


def test_a_leap_keeps_its_class_across_processes() -> None:
    leap = SpikeError("the training loss is 9.1")
    assert _verdict(_heard(2, {0: leap, 1: leap})).failure == "loss_spike"


def test_workers_of_which_none_died_and_some_never_spoke_did_not_start() -> None:
    verdict = _verdict(_heard(0))
    assert verdict.failure == "not_started"
    assert "no room" in verdict.what


def test_it_is_waited_until_ray_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "LOOK_SECONDS", 0.001)
    asked = _after(3, LOST)
    assert diagnose(_heard(2, {0: BROKEN}), 2, asked, "").failure == "lost_node"
    monkeypatch.setattr(failures, "EXPLAIN_SECONDS", 0.01)
    assert diagnose(_heard(2, {0: BROKEN}), 2, _after(10**9, LOST), "").failure == "lost_connection"


def _after(looks: int, fate: Fate) -> Callable[[Place], Fate]:
    seen: list[Place] = []

    def asked(place: Place) -> Fate:
        seen.append(place)
        return fate if len(seen) > looks else Fate()

    return asked


def test_only_the_events_of_the_last_attempt_count(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    for number in range(2):
        log.write("attempt", number=number, workers=1)
        log.write("rank", rank=0, node=f"node-{number}", host="here", pid=os.getpid(), kernel_kills=kernel_kills())
    assert {event["node"] for event in of_this_attempt(tmp_path) if event["kind"] == "rank"} == {"node-1"}


def test_this_kernel_counts_whom_it_kills() -> None:
    if "oom_kill " not in failures.KERNEL_COUNTS.read_text():
        assert kernel_kills() == -1
    else:
        assert kernel_kills() >= 0


def test_it_counts_one_that_it_killed_for_want_of_memory() -> None:
    before = kernel_kills()
    with starving_group(30_000_000) as group:
        greedy = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); b'x' * 200_000_000"
        ended = subprocess.run([sys.executable, "-c", greedy, str(group)], capture_output=True)
    assert ended.returncode == -signal.SIGKILL
    assert kernel_kills() > before


def _settled(folder: Path, verdict: Verdict, times: int) -> list[dict[str, Any]]:
    budgets = Budgets()
    for attempt in range(times):
        _settle(folder, StopFile(folder, "7-0"), verdict, budgets, attempt, step=5)
    return [event for _, event in read_events(folder)]


def test_a_store_that_is_away_gets_new_workers_by_its_budget_and_then_its_own_error(
    tmp_path: Path,
) -> None:
    away, budget = TransientError("the store did not give shard-3"), FAILURES["storage_away"].budget
    assert budget is not None
    verdict = _verdict(_heard(2, {0: away}))
    told = _settled(tmp_path, verdict, budget)
    assert [event["budget_left"] for event in told] == [*reversed(range(budget))]
    with pytest.raises(TransientError, match="shard-3"):
        _settled(tmp_path, verdict, budget + 1)


@pytest.mark.parametrize("error", [DataError("no"), DivergedError("nan"), CheckpointError("differs")])
def test_what_a_new_attempt_would_meet_again_is_raised_at_once(tmp_path: Path, error: FoundationError) -> None:
    with pytest.raises(type(error)):
        _settled(tmp_path, _verdict(_heard(2, {0: error})), 1)
    ((_, event),) = read_events(tmp_path)
    assert (event["kind"], event["budget_left"]) == ("failure", 0)


def test_an_attempt_that_was_asked_to_leave_ends_the_job_only_if_the_job_was_asked(tmp_path: Path) -> None:
    verdict, stop = _verdict(_heard(2, {0: Stopped("saved")})), StopFile(tmp_path, "7-0")
    stop.request_restart(Restart("", "there is room for 3 workers"))
    assert _settled(tmp_path, verdict, 1) == [], "another number of workers is no failure"
    stop.request_restart(Restart("preempted", "node-1 goes"))
    assert [event["what"] for event in _settled(tmp_path, verdict, 1)] == ["node-1 goes: saved"]
    stop.request()
    with pytest.raises(Stopped):
        _settled(tmp_path, verdict, 1)


def test_a_class_that_used_up_its_budget_ends_the_job_with_what_to_do(tmp_path: Path) -> None:
    verdict = _verdict(_heard(2, {0: BROKEN}), {1: BY_RAY})
    with pytest.raises(TransientError, match="host_memory came 2 times in a row") as raised:
        _settled(tmp_path, verdict, 2)
    assert raised.value.fix == FAILURES["host_memory"].to_do
