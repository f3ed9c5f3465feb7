"""How many workers of a training a Ray cluster has room for, and the wait until it has.

nodes that live and stay -> CPUs of each // CPUs of a worker -> between the least and the most that the spec wants
                            and a GPU for each, where they compute on GPUs
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cluster.failures import draining_nodes
from cluster.stop import StopFile
from foundation_core.errors import FoundationError, Requeued, SetupError, Stopped, TransientError
from foundation_core.events import EventLog
from foundation_core.specs import PretrainSpec

LOOK_SECONDS = 0.5
SETTLE_SECONDS = 10.0
"""How long more workers are waited for where fewer would do: those of an attempt that ended give their CPUs back."""


class Room(NamedTuple):
    """Workers, CPUs and GPUs of a cluster.

    Args:
        free: workers that fit now.
        possible: workers that fit if nobody else is at work.
        free_cpus: of all nodes.
        cpus: of all nodes that live and stay.
        gpus: of all nodes that live and stay.
        free_gpus: of these.
    """

    free: int
    possible: int
    free_cpus: int
    cpus: int
    gpus: int = 0
    free_gpus: int = 0


def look_for_room(spec: PretrainSpec) -> Room:
    """The room that there is now for workers of a training whose device is decided."""
    import ray
    from ray._private.state import available_resources_per_node

    leaving, free = draining_nodes(), available_resources_per_node()
    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    stay = {node: resources for node, resources in alive.items() if node not in leaving}
    free_there = [free.get(node, {}) for node in stay]
    return Room(
        sum(_workers(resources, spec) for resources in free_there),
        sum(_workers(resources, spec) for resources in stay.values()),
        sum(int(resources.get("CPU", 0)) for resources in free_there),
        sum(int(resources.get("CPU", 0)) for resources in stay.values()),
        sum(int(resources.get("GPU", 0)) for resources in stay.values()),
        sum(int(resources.get("GPU", 0)) for resources in free_there),
    )


def _workers(resources: Mapping[str, float], spec: PretrainSpec) -> int:
    """Workers that a node has the CPUs for, and the GPUs where each computes on one."""
    by_cpus = int(resources.get("CPU", 0)) // spec.threads_per_worker
    return min(by_cpus, int(resources.get("GPU", 0))) if spec.device == "cuda" else by_cpus


def with_device(spec: PretrainSpec, *, torch_has_cuda: bool) -> PretrainSpec:
    """The spec with its device decided for the cluster that this process has joined.

    Args:
        torch_has_cuda: whether the torch that is installed is built for GPUs.
    """
    if spec.device != "auto":
        return spec
    on_gpus = spec.model_copy(update={"device": "cuda"})
    if torch_has_cuda and look_for_room(on_gpus).possible >= spec.fewest_workers:
        return on_gpus
    return spec.model_copy(update={"device": "cpu"})


def wait_for_room(spec: PretrainSpec, folder: Path, *, is_first: bool, preempted: bool) -> int:
    """How many workers to start, once there is room for them: others may be at work, and a queue is no failure.

    Args:
        preempted: the attempt before was ended because its node will go.

    Raises:
        SetupError: the cluster is too small, and nothing was started.
        TransientError: it is too small since a node was lost.
        Requeued: it is too small since a node was taken away.
        Stopped: somebody asked.
    """
    stop, settled, said = StopFile(folder), time.monotonic() + SETTLE_SECONDS, False
    while True:
        if stop.end_requested():
            raise Stopped("training stopped before its workers began", fix="run the same command again")
        room = look_for_room(spec)
        if room.possible < spec.fewest_workers:
            raise _too_small(spec, room) if is_first else _lost_node(spec, room, preempted=preempted)
        wanted = min(spec.workers, room.possible)
        if room.free >= wanted or (room.free >= spec.fewest_workers and time.monotonic() > settled):
            return min(spec.workers, room.free)
        if not said:
            EventLog(folder).say(_waiting(spec, room, wanted))
            said = True
        time.sleep(LOOK_SECONDS)


def _waiting(spec: PretrainSpec, room: Room, workers: int) -> str:
    cpus = workers * spec.threads_per_worker
    if spec.device != "cuda":
        return f"waiting for {cpus} CPUs: {room.free_cpus} of {room.cpus} are free"
    there = f"{room.free_gpus} of {room.gpus} GPUs and {room.free_cpus} of {room.cpus} CPUs are free"
    return f"waiting for {workers} GPUs, with {spec.threads_per_worker} CPUs each: {there}"


def too_few_cpus(spec: PretrainSpec, present: int) -> SetupError:
    """The error for a request that no cluster of this size can ever grant."""
    fewest, threads = spec.fewest_workers, spec.threads_per_worker
    return SetupError(
        f"pretrain wants {fewest} workers of {threads} CPUs, and there are {present} CPUs in all",
        allowed=f"workers x threads_per_worker up to {present}, on nodes that hold whole workers",
        fix=f"set --pretrain.workers {max(1, present // threads)}, or add nodes to the cluster",
    )


def _too_small(spec: PretrainSpec, room: Room) -> SetupError:
    if spec.device != "cuda":
        return too_few_cpus(spec, room.cpus)
    if spec.fewest_workers <= room.gpus:
        return SetupError(
            f"pretrain wants {spec.fewest_workers} workers with a GPU and {spec.threads_per_worker} CPUs each,"
            f" and Ray's nodes hold {room.possible}: they have {room.gpus} GPUs and {room.cpus} CPUs in all",
            allowed="as many workers as nodes have a GPU and threads_per_worker CPUs for",
            fix="lower --pretrain.threads_per_worker or --pretrain.workers, or add nodes with GPUs",
        )
    return SetupError(
        f"pretrain wants {spec.fewest_workers} workers with a GPU each, and Ray's nodes have {room.gpus} GPUs in all",
        allowed=f"up to {room.gpus} workers with --pretrain.device cuda",
        fix="lower --pretrain.workers, add nodes with GPUs, or set --pretrain.device cpu",
    )


def _lost_node(spec: PretrainSpec, room: Room, *, preempted: bool) -> FoundationError:
    cpus = spec.fewest_workers * spec.threads_per_worker
    need = f"need {cpus} CPUs, and {room.cpus} are left"
    if spec.device == "cuda" and spec.fewest_workers > room.gpus:
        need = f"need {spec.fewest_workers} GPUs, and {room.gpus} are left"
    elif spec.device == "cuda":
        need = (
            f"need {spec.fewest_workers} GPUs with {spec.threads_per_worker} CPUs each,"
            f" and {room.gpus} GPUs and {room.cpus} CPUs are left"
        )
    kind, lost = (Requeued, "gave a node back") if preempted else (TransientError, "lost a node")
    return kind(
        f"the cluster {lost}: the workers {need}",
        fix="let another node join, then run the same command again: it continues from the last checkpoint",
    )
