"""A data-parallel stage on Ray Train: one process a worker, a gloo group, a DeepSpeed or torch engine in each."""

from __future__ import annotations

import gc
import os
import socket
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.job import Job, call_stage
from cluster.ray_jobs import join_cluster
from cluster.stop import StopFile
from foundation_core.errors import FoundationError, SetupError, Stopped, TransientError, as_foundation_error
from foundation_core.events import EventLog, SilentLog, read_events
from foundation_core.specs import PretrainSpec
from foundation_core.store import RESULT_FILE, commit_result

if TYPE_CHECKING:
    from foundation_core.train.precision import Precision

WORKER_FAILURE_BUDGET = 2
"""Lost workers that a job replaces; training goes on from the last checkpoint each time."""
LOOK_SECONDS = 0.5


def run_ranks(job: Job) -> None:
    """Run the job's stage on all workers; return when its result is committed.

    Raises:
        SetupError: the cluster has fewer CPUs than the workers need; nothing was started.
        FoundationError: what a worker raised.
        TransientError: workers were lost more often than the budget allows, or with a node that nothing replaces.
    """
    from ray.train.v2.api.exceptions import TrainingFailedError

    spec = job.typed_spec()
    assert isinstance(spec, PretrainSpec)
    folder, lost = Path(job.folder), False
    join_cluster(folder)
    for attempt in range(WORKER_FAILURE_BUDGET + 1):
        _wait_for_cpus(spec, folder, is_first=attempt == 0)
        try:
            _fit(job, spec, attempt)
        except TrainingFailedError as error:
            heard = _of_this_attempt(folder)
            raised = _cause(heard, spec.workers)
            if raised is not None:
                raise raised from error
            began = any(event["kind"] == "rank" for event in heard)
            what = "a worker was lost" if began else f"the workers did not start: {_last_line(error)}"
            EventLog(folder).say(f"{what} ({attempt + 1} of {WORKER_FAILURE_BUDGET} allowed)")
            EventLog(folder).write("attempt", number=attempt + 1)
            lost = lost or began
        if (folder / RESULT_FILE).exists():
            return
        gc.collect()  # what is left of the attempt holds its controller, and that its workers and their CPUs
    starts = WORKER_FAILURE_BUDGET + 1
    raise TransientError(
        f"workers were lost {starts} times" if lost else f"the workers did not start, {starts} times",
        fix="look at the Ray job's log, then run the same command again: it continues from the last checkpoint",
    )


def _fit(job: Job, spec: PretrainSpec, attempt: int) -> None:
    """One attempt of Ray Train's."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    TorchTrainer(
        _run_rank,
        train_loop_config=asdict(job),
        torch_config=TorchConfig(backend="gloo", timeout_s=spec.watch.collective_seconds),
        scaling_config=ScalingConfig(num_workers=spec.workers, resources_per_worker={"CPU": spec.threads_per_worker}),
        run_config=RunConfig(
            name=f"attempt-{attempt}",
            storage_path=str(Path(job.folder) / "ray"),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    ).fit()


def _last_line(error: Exception) -> str:
    """Ray's errors end with the line that says what was wrong."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


def _wait_for_cpus(spec: PretrainSpec, folder: Path, *, is_first: bool) -> None:
    """Return once the cluster has the CPUs free: others may be at work there, and a queue is no failure.

    Raises:
        SetupError: it has fewer in all, and nothing was started.
        TransientError: it has fewer in all since a node was lost.
        Stopped: somebody asked.
    """
    import ray

    needed, stop, said = spec.workers * spec.threads_per_worker, StopFile(folder), False
    while (free := int(ray.available_resources().get("CPU", 0))) < needed:
        present = int(ray.cluster_resources().get("CPU", 0))
        if needed > present:
            raise too_few_cpus(spec, present) if is_first else _lost_node(spec, present)
        if stop.requested():
            raise Stopped("training stopped before its workers began", fix="run the same command again")
        if not said:
            EventLog(folder).say(f"waiting for {needed} CPUs: {free} of {present} are free")
            said = True
        time.sleep(LOOK_SECONDS)


def too_few_cpus(spec: PretrainSpec, present: int) -> SetupError:
    """The error for a request that no cluster of this size can ever grant."""
    return SetupError(
        f"pretrain wants {spec.workers} workers of {spec.threads_per_worker} CPUs, and there are {present} CPUs in all",
        allowed=f"workers x threads_per_worker up to {present}",
        fix=f"set --pretrain.workers {max(1, present // spec.threads_per_worker)}, or add nodes to the cluster",
    )


def _lost_node(spec: PretrainSpec, present: int) -> TransientError:
    needed = spec.workers * spec.threads_per_worker
    return TransientError(
        f"the cluster lost a node: the workers need {needed} CPUs, and {present} are left",
        fix="let another node join, then run the same command again: it continues from the last checkpoint",
    )


def _run_rank(body: dict[str, Any]) -> None:
    """What one worker does; rank 0 reports and commits."""
    import torch
    from ray import get_runtime_context
    from ray.train import get_context

    from cluster.deepspeed_engine import engine_factory
    from cluster.pools import ProcessPool
    from cluster.system_metrics import system_metrics
    from foundation_core.stages.contract import Context
    from foundation_core.tracking.base import EventTracker, NullTracker

    job = Job(**body)
    spec = job.typed_spec()
    assert isinstance(spec, PretrainSpec)
    torch.set_num_threads(spec.threads_per_worker)
    folder, rank = Path(job.folder), get_context().get_world_rank()
    events = EventLog(folder) if rank == 0 else SilentLog()
    context = Context(
        folder=folder,
        tracker=EventTracker(events) if rank == 0 else NullTracker(),
        events=events,
        stop=StopFile(folder),
        pool=ProcessPool(),
        engine=engine_factory(spec.engine, spec.zero_stage),
        rank=rank,
        world=get_context().get_world_size(),
        choose_precision=_choose_together,
    )
    node = get_runtime_context().get_node_id()
    EventLog(folder).write("rank", rank=rank, node=node, host=socket.gethostname(), pid=os.getpid())
    try:
        with system_metrics(context.tracker, folder) if rank == 0 else nullcontext():
            result = call_stage(job, context)
    except Exception as error:
        EventLog(folder).write("raised", rank=rank, error=as_foundation_error(error).to_json())
        raise
    if rank == 0:
        commit_result(folder, job.action_key(), result)


def _choose_together(asked: str) -> Precision:
    """What rank 0 decides: two ranks that time for themselves could disagree."""
    from torch import distributed

    from foundation_core.train.precision import choose_precision

    decision = [choose_precision(asked) if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(decision)
    assert decision[0] is not None
    return decision[0]


def _of_this_attempt(folder: Path) -> list[dict[str, Any]]:
    """The events since the attempt began."""
    heard: list[dict[str, Any]] = []
    for _, event in read_events(folder):
        if event["kind"] in ("start", "attempt"):
            heard.clear()
        heard.append(event)
    return heard


def _cause(heard: list[dict[str, Any]], workers: int) -> FoundationError | None:
    """What ended the attempt if trying again would end alike; None if a worker was lost.

    A worker that was killed says nothing, and those that waited for it say that their connection broke. So an error
    that was raised on purpose counts, and any other only if every worker could still speak.
    """
    raised = {event["rank"]: FoundationError.from_json(event["error"]) for event in heard if event["kind"] == "raised"}
    meant = [error for error in raised.values() if type(error) is not FoundationError]
    if meant:
        return meant[0]
    return raised[min(raised)] if len(raised) == workers else None
