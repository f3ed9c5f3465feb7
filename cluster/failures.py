"""Why an attempt of a training ended, by what the ranks said and by what Ray knows of those that said nothing.

    events `rank`, `raised`, `failure` of the attempt --+
    Ray: is the node dead? the worker? how did it go? --+--> Verdict: a class of foundation_core/failures.py, and words
    the host: did the kernel kill for want of memory? --+

A worker that is killed says nothing, and those that waited for it say that their connection broke; so what a rank
raised counts only if it was raised on purpose, or if no worker is found dead. Ranks that all say that their connection
broke, and all live, lost each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from foundation_core.errors import (
    CheckpointError,
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
)
from foundation_core.events import read_events

EXPLAIN_SECONDS = 120.0
"""How long Ray may take to find out about a worker; it calls a node dead after half a minute of silence."""
LOOK_SECONDS = 0.5
KERNEL_COUNTS = Path("/proc/vmstat")
_HANG = "hang"
_PREEMPTED = 3
"""AUTOSCALER_DRAIN_PREEMPTED of Ray's NodeDeathInfo."""
_BY_KIND: Mapping[type[Exception], str] = {
    ShardError: "corrupt_shard",
    CheckpointError: "corrupt_checkpoint",
    DivergedError: "persistent_nan",
    SpikeError: "loss_spike",
    DeviceMemoryError: "device_memory",
    SecondWriterError: "second_writer",
    TransientError: "storage_away",
}
"""The class of what a rank raises on purpose; every other kind says what is wrong with the request."""
_NO_CAUSE = (Stopped, LostConnectionError, ElsewhereError)
"""What a rank says that was asked to leave, that the others left, or that left because another had failed."""


class Place(NamedTuple):
    """Where a rank was.

    Args:
        kernel_kills: of its host when it began; -1 where the host does not say.
    """

    rank: int
    node: str
    host: str
    pid: int
    kernel_kills: int


class Fate(NamedTuple):
    """What became of a rank's worker, as far as it is known.

    Args:
        node_dead: Ray calls its node dead.
        preempted: Ray had been told that the node will go.
        exit_type: Ray's word for how the worker ended; empty while it lives.
        for_memory: the kernel of its host killed for want of memory since it began.
        words: Ray's.
    """

    node_dead: bool = False
    preempted: bool = False
    exit_type: str = ""
    for_memory: bool = False
    words: str = ""

    @property
    def is_known(self) -> bool:
        """Whether Ray has found out."""
        return self.node_dead or bool(self.exit_type)


class Verdict(NamedTuple):
    """Why an attempt ended.

    Args:
        failure: a class of the table; empty: it was asked to.
        error: what a rank raised, where that is the cause.
        facts: of the event: rank, node, host.
        is_told: a rank has written the event.
    """

    failure: str
    what: str
    error: FoundationError | None = None
    facts: Mapping[str, Any] = {}
    is_told: bool = False


def kernel_kills() -> int:
    """How many processes this host's kernel has killed for want of memory since it started; -1 if it does not say."""
    try:
        lines = KERNEL_COUNTS.read_text().splitlines()
    except OSError:
        return -1
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), -1)


def of_this_attempt(folder: Path) -> list[dict[str, Any]]:
    """The events since the attempt began."""
    heard: list[dict[str, Any]] = []
    for _, event in read_events(folder):
        if event["kind"] == "attempt":  # a `start` may be that of a command which follows a job that runs
            heard.clear()
        heard.append(event)
    return heard


def places(heard: Sequence[Mapping[str, Any]]) -> dict[int, Place]:
    """Where each rank that began was."""
    return {
        event["rank"]: Place(
            event["rank"], event["node"], event["host"], event["pid"], event.get("kernel_kills", -1)
        )
        for event in heard
        if event["kind"] == "rank"
    }  # fmt: skip


def diagnose(
    heard: Sequence[Mapping[str, Any]], workers: int, fate_of: Callable[[Place], Fate], ray_says: str
) -> Verdict:
    """Why the attempt ended that these events are of.

    Args:
        fate_of: what became of a rank's worker; asked until it is known, or for `EXPLAIN_SECONDS`.
        ray_says: the last line of Ray Train's error, for an attempt of which nothing else is known.
    """
    open_failures = _not_recovered(heard)
    raised = {event["rank"]: FoundationError.from_json(event["error"]) for event in heard if event["kind"] == "raised"}
    stopped = [error for error in raised.values() if isinstance(error, Stopped)]
    faults = {rank: error for rank, error in raised.items() if type(error) is FoundationError}
    meant = {rank: e for rank, e in raised.items() if rank not in faults and not isinstance(e, _NO_CAUSE)}
    if meant:
        rank = min(meant)
        failure = next((_BY_KIND[kind] for kind in type(meant[rank]).__mro__ if kind in _BY_KIND), "user_error")
        return Verdict(failure, meant[rank].found, meant[rank], {"rank": rank}, failure in open_failures)
    if stopped:
        return Verdict("", stopped[0].found, stopped[0])
    if _HANG in open_failures:  # a rank's watchdog ended the attempt; nothing else that is told does
        return Verdict(_HANG, open_failures[_HANG]["what"], is_told=True)
    where = places(heard)
    dead = _dead({rank: place for rank, place in where.items() if rank not in raised}, fate_of)
    for failure in ("preempted", "lost_node", "host_memory", "killed_worker"):
        for place, fate in dead:
            if _class_of(fate) == failure:
                facts = {"rank": place.rank, "node": place.node, "host": place.host}
                return Verdict(failure, _words(failure, place, fate), None, facts)
    if len(where) < workers:
        return Verdict("not_started", f"the workers did not start: {ray_says}")
    if faults and len(raised) == workers:
        rank = min(faults)
        return Verdict("user_error", faults[rank].found, faults[rank], {"rank": rank})
    spoke = f"rank {min(raised)} says: {raised[min(raised)].found}" if raised else ray_says
    return Verdict("lost_connection", f"the workers lost each other, and none of them died; {spoke}")


def _not_recovered(heard: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The last failure of each class after which work did not go on."""
    found = dict[str, Mapping[str, Any]]()
    for event in heard:
        if event["kind"] == "failure":
            found[event["failure"]] = event
        elif event["kind"] == "recovered":
            found.pop(event["failure"], None)
    return found


def _dead(silent: Mapping[int, Place], fate_of: Callable[[Place], Fate]) -> list[tuple[Place, Fate]]:
    """Those of the silent ranks that did not end on purpose, once Ray knows of all of them."""
    deadline = time.monotonic() + EXPLAIN_SECONDS
    fates = {rank: fate_of(place) for rank, place in silent.items()}
    while not all(fate.is_known for fate in fates.values()) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        fates |= {rank: fate_of(silent[rank]) for rank, fate in fates.items() if not fate.is_known}
    return [(silent[rank], fate) for rank, fate in fates.items() if _class_of(fate)]


def _class_of(fate: Fate) -> str:
    """The class of a worker's death; empty for one that Ray ended on purpose, with the others or after them."""
    if fate.node_dead:
        return "preempted" if fate.preempted else "lost_node"
    if fate.exit_type == "NODE_OUT_OF_MEMORY" or (fate.exit_type == "SYSTEM_ERROR" and fate.for_memory):
        return "host_memory"
    return "killed_worker" if fate.exit_type in ("SYSTEM_ERROR", "USER_ERROR") else ""


def _words(failure: str, place: Place, fate: Fate) -> str:
    where = f"worker {place.rank} (process {place.pid} on {place.host}, node {place.node[:12]})"
    said = fate.words.partition(". Some common causes")[0].strip()
    match failure:
        case "preempted":
            return f"the node of {where} was taken away, as had been said"
        case "lost_node":
            return f"the node of {where} is lost: {said}"
        case "host_memory":
            who = "the kernel" if fate.for_memory else "Ray's memory monitor"
            return f"{who} ended {where} for want of memory"
    return f"{where} was killed: {said}"


def fate_by_ray(place: Place) -> Fate:
    """What Ray's tables say of a rank's node and worker, and its host's kernel of memory."""
    import ray
    from ray.util.state import list_workers
    from ray.util.state.exception import RayStateApiException

    node = next((node for node in ray.nodes() if node["NodeID"] == place.node), None)
    if node is not None and not node["Alive"]:
        return Fate(True, node["DeathReason"] == _PREEMPTED, words=node["DeathReasonMessage"])
    filters = [("pid", "=", str(place.pid)), ("node_id", "=", place.node)]
    try:
        found = list_workers(filters=filters, detail=True, raise_on_missing_output=False)
    except (RayStateApiException, OSError):  # not known yet: it is asked again
        return Fate()
    worker = next((worker for worker in found if not worker.is_alive), None)
    if worker is None:
        return Fate()
    exit_type = str(worker.exit_type)
    for_memory = exit_type == "SYSTEM_ERROR" and 0 <= place.kernel_kills < _kernel_kills_there(place.node)
    return Fate(False, False, exit_type, for_memory, worker.exit_detail or "")


def _kernel_kills_there(node: str) -> int:
    """The count of a node's kernel; -1 if the node does not answer."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    try:
        counted = ray.remote(kernel_kills).options(num_cpus=0, scheduling_strategy=there).remote()
        return int(ray.get(counted, timeout=30))
    except RayError:
        return -1


def draining_nodes() -> dict[str, int]:
    """The nodes that Ray was told will go, with the time until which, in milliseconds since the epoch; 0: not said.

    This is what Ray Train's own watcher asks; that one is an actor of its own and tells the workers alone.
    """
    from ray._private.state import state

    return dict(state.get_draining_nodes())
