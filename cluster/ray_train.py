"""A data-parallel stage on Ray Train: one process a worker, one group, an engine in each; attempt after attempt.

    room for how many? -> attempt -> result: done
          ^                 |-> asked to leave: a node goes, or there is room for more --+
          |                 |-> workers lost: whose fault, is its budget left?  ---------+
          +------------------------------------------------------------------------------+

An attempt goes on from the newest checkpoint, whatever the number of workers that saved it. Workers compute on their
CPUs and speak by gloo, or on a GPU each and speak by NCCL, objects of the CPU still by gloo; no GPU has run that yet.
"""

from __future__ import annotations

import gc
import os
import socket
import time
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from cluster.attempt import PREEMPTED, AttemptWatch
from cluster.compatibility import check_tools
from cluster.failures import Verdict, diagnose, fate_by_ray, kernel_kills, of_this_attempt
from cluster.job import Job, call_stage
from cluster.ray_jobs import join_cluster
from cluster.room import wait_for_room, with_device
from cluster.stop import StopFile
from foundation_core.errors import FoundationError, SetupError, Stopped, TransientError, as_foundation_error
from foundation_core.events import EventLog, SilentLog
from foundation_core.failures import FAILURES, Budgets
from foundation_core.specs import PretrainSpec
from foundation_core.store import RESULT_FILE, commit_result

if TYPE_CHECKING:
    import torch

    from foundation_core.train.precision import Precision

LOOK_SECONDS = 1.0


def run_ranks(job: Job) -> None:
    """Run the job's stage on all workers; return when its result is committed.

    Raises:
        SetupError: the cluster has fewer CPUs or GPUs than the fewest workers need; nothing was started.
        FoundationError: what a worker raised.
        TransientError: a class of failures has used up its budget, or too few nodes are left.
        Stopped: somebody asked.
    """
    spec = job.typed_spec()
    assert isinstance(spec, PretrainSpec)
    folder, budgets = Path(job.folder), Budgets()
    join_cluster(folder)
    spec = with_device(spec, torch_has_cuda=_torch_has_cuda())
    number, furthest = 0, 0
    failed: tuple[str, float] | None = None
    while True:
        preempted = failed is not None and failed[0] == PREEMPTED
        workers = wait_for_room(spec, folder, is_first=number == 0, preempted=preempted)
        stop = StopFile(folder, f"{os.getpid()}-{number}")
        EventLog(folder).write("attempt", number=number, workers=workers)
        watch = AttemptWatch(spec, folder, stop, workers, failed)
        error = _fit(job, spec, workers, number, watch)
        if (folder / RESULT_FILE).exists():
            return
        if error is None:
            raise FoundationError("the workers ended without a result", fix="look at the Ray job's log")
        if watch.newest_step > furthest:
            furthest = watch.newest_step
            budgets.renew()
        verdict = diagnose(of_this_attempt(folder), workers, fate_by_ray, _last_line(error))
        failed = _settle(folder, stop, verdict, budgets, number, watch.newest_step or furthest) or watch.failed
        number += 1
        gc.collect()  # what is left of the attempt holds its controller, and that its workers and their CPUs


def _settle(
    folder: Path, stop: StopFile, verdict: Verdict, budgets: Budgets, attempt: int, step: int
) -> tuple[str, float] | None:
    """Tell why an attempt ended; the class and the time of the failure that another one follows, None if of none.

    Raises:
        FoundationError: there will be no other attempt.
    """
    failure, what, error = verdict.failure, verdict.what, verdict.error
    if isinstance(error, Stopped):
        wanted = stop.restart_reason()
        if stop.end_requested() or wanted is None:
            raise error
        failure, what = wanted.failure, f"{wanted.what}: {what}"
    if not failure:
        return None
    goes_on, left = budgets.spend(failure), budgets.left(failure)
    ends = error is not None and not error.retryable
    if not verdict.is_told:
        EventLog(folder).write(
            "failure", failure=failure, step=step, attempt=attempt, budget_left=0 if ends else left, what=what,
            **verdict.facts,
        )  # fmt: skip
    if error is not None and (ends or not goes_on):
        raise error
    if not goes_on:
        row = FAILURES[failure]
        raise TransientError(f"{what}; {failure} came {budgets.spent(failure)} times in a row", fix=row.to_do)
    return failure, time.time()


def _fit(job: Job, spec: PretrainSpec, workers: int, number: int, watch: AttemptWatch) -> Exception | None:
    """One attempt, looked after until it has ended; Ray Train's error, if it did not end well.

    Ray Train runs in a thread: in the main one it would take SIGINT for itself and kill the workers.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    on_gpus = spec.device == "cuda"
    trainer = TorchTrainer(
        _run_rank,
        train_loop_config={"job": asdict(job), "attempt": watch.attempt, "device": spec.device},
        torch_config=_listening_group(job.folder, watch.attempt, spec),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=on_gpus,
            resources_per_worker={"CPU": spec.threads_per_worker, **({"GPU": 1} if on_gpus else {})},
        ),
        run_config=RunConfig(
            name=f"attempt-{number}",
            storage_path=str(Path(job.folder) / "ray"),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )
    errors: list[Exception] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:  # of whatever kind: it is raised, or judged, where the thread was started
            errors.append(error)

    thread = Thread(target=fit, name=f"attempt-{number}", daemon=True)
    thread.start()
    while thread.is_alive():
        watch.look()
        thread.join(LOOK_SECONDS)
    watch.look()
    if errors and not isinstance(errors[0], TrainingFailedError):
        raise errors[0]
    return errors[0] if errors else None


def _torch_has_cuda() -> bool:
    import torch

    return torch.version.cuda is not None


def _listening_group(folder: str, attempt: str, spec: PretrainSpec) -> Any:
    """The group of an attempt, whose workers hear signals; its exchanges end with an error after a time.

    On GPUs tensors go by NCCL; what is on the CPU, as an object that all ranks must know, by gloo.
    """
    from ray.train.torch import TorchConfig

    class ListeningGroup(TorchConfig):  # type: ignore[misc]  # Ray has no types here
        @property
        def backend_cls(self) -> Any:
            class Listening(super().backend_cls):  # type: ignore[misc]  # found when it runs
                def on_start(self, worker_group: Any, backend_config: Any) -> None:
                    super().on_start(worker_group, backend_config)
                    worker_group.execute(_listen, folder, attempt)

            return Listening

    backend = "cpu:gloo,cuda:nccl" if spec.device == "cuda" else "gloo"
    return ListeningGroup(backend=backend, timeout_s=spec.patient_watch.collective_seconds)


def _listen(folder: str, attempt: str) -> None:
    """Runs in a worker's main thread, the only one in which Python hears signals; training has one of its own."""
    StopFile(Path(folder), attempt).restart_on_signals(PREEMPTED)


def _last_line(error: Exception) -> str:
    """Ray's errors end with the line that says what was wrong."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


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
    from foundation_core.train.ranks import lost_connection

    job = Job(**body["job"])
    spec = job.typed_spec()
    assert isinstance(spec, PretrainSpec)
    torch.set_num_threads(spec.threads_per_worker)
    folder, rank = Path(job.folder), get_context().get_world_rank()
    events = EventLog(folder) if rank == 0 else SilentLog()
    node = get_runtime_context().get_node_id()
    EventLog(folder).write(
        "rank", rank=rank, node=node, host=socket.gethostname(), pid=os.getpid(), kernel_kills=kernel_kills()
    )
    try:
        check_tools(spec)
        device = _device(body["device"])
        context = Context(
            folder=folder,
            tracker=EventTracker(events) if rank == 0 else NullTracker(),
            events=events,
            stop=StopFile(folder, body["attempt"]),
            pool=ProcessPool(),
            engine=engine_factory(spec.engine, spec.zero_stage),
            rank=rank,
            world=get_context().get_world_size(),
            local_rank=get_context().get_local_rank(),
            local_world=get_context().get_local_world_size(),
            device=device,
            choose_precision=partial(_choose_together, folder, device),
        )
        with system_metrics(context.tracker, folder) if rank == 0 else nullcontext():
            result = call_stage(job, context)
    except Exception as error:
        told = lost_connection(error) or as_foundation_error(error)
        EventLog(folder).write("raised", rank=rank, error=told.to_json())
        raise
    if rank == 0:
        commit_result(folder, job.action_key(), result)


def _device(name: str) -> torch.device:
    """The device of this worker, which is from now on the one that torch takes.

    Raises:
        SetupError: Ray gave it a GPU, and torch finds none.
    """
    import torch
    from ray.train.torch import get_device

    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SetupError(
            f"Ray gave worker {socket.gethostname()}:{os.getpid()} a GPU, and torch {torch.__version__} finds none",
            fix="install a torch that is built for it on every node, or set --pretrain.device cpu",
        )
    device: torch.device = get_device()
    torch.cuda.set_device(device)
    return device


def _choose_together(folder: Path, device: torch.device, asked: str) -> Precision:
    """What rank 0 decides, once for all attempts: two ranks, or two nodes, that time for themselves could disagree."""
    from torch import distributed

    from foundation_core.train.precision import keep_precision

    decision: list[Precision | None] = [None]
    if distributed.get_rank() == 0:
        decision = [keep_precision(folder, asked, device)]
    distributed.broadcast_object_list(decision)
    assert decision[0] is not None
    return decision[0]
