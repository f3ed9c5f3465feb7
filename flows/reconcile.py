"""What was killed leaves traces: runs that Prefect or MLflow call running, jobs that nobody follows. Here they end.

    Prefect run without an owner  -> scheduled again if a form started it, else Crashed; Cancelled if it was cancelling
    Ray job without an owner      -> saves and stops, unless a run that was scheduled again will take it up
    lease without an owner        -> removed
    MLflow run without an owner   -> KILLED; the same work reopens it under the same id

An owner is a live lease (`cluster.orphans`). Nothing younger than the grace is touched: its owner may be starting. What
other data folders do on the same servers is left alone: they have deployments, marks and stage folders of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import AwaitingRetry, Cancelled, Crashed

from cluster.leases import is_held
from cluster.orphans import dead_runs, end_job, forget_run, orphaned_jobs, release_stale_leases, run_folder
from cluster.settings import Settings
from foundation_core.errors import FoundationError
from foundation_core.tracking.open_runs import OpenRun, close_run, open_runs

GRACE_SECONDS = 20.0
"""From the state `Running` to the lease: a flow imports, reads its recipe and plans."""
ATTEMPTS = 3
"""How often a run from a form is started before it is given up."""
SOON = "Its process was gone; it is started again and continues from what was saved."
GONE = "Its process was gone. Retry it, or start the same recipe: it continues from what was saved."
_OPEN = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])

Say = Callable[[str], None]


def reconcile(settings: Settings, say: Say, *, grace_seconds: float = GRACE_SECONDS) -> None:
    """Look once, and end what has no owner; what is not reachable is left for the next look."""
    dead = dead_runs(settings)
    with get_client(sync_client=True) as client:
        mine = [run for run in _open_flow_runs(client) if run.deployment_id is not None or str(run.id) in dead]
        waiting = [run for run in mine if _settle(client, run, settings, say, grace_seconds)]
    if stale := release_stale_leases(settings):
        say(f"released {stale} leases whose owners are gone")
    if not waiting:
        _end_jobs(settings, say, grace_seconds)
        _close_mlflow_runs(settings, dead, say, grace_seconds)
        for run_id in dead:
            forget_run(settings, run_id)


def _open_flow_runs(client: SyncPrefectClient) -> Iterable[FlowRun]:
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=_OPEN)))


def _settle(client: SyncPrefectClient, run: FlowRun, settings: Settings, say: Say, grace_seconds: float) -> bool:
    """Give a run without an owner the state that is true; whether somebody may yet take up its work."""
    state = run.state
    if state is None or is_held(run_folder(settings, str(run.id))):
        return False
    if (datetime.now(UTC) - state.timestamp).total_seconds() < grace_seconds:
        return True
    new, resumed = _true_state(run, state)
    client.set_flow_run_state(run.id, new, force=True)
    say(f"flow run {run.name}: {state.name} -> {new.name}; its process was gone")
    return resumed


def _true_state(run: FlowRun, state: State) -> tuple[State, bool]:
    if state.type == StateType.CANCELLING:
        return Cancelled(message="Its process was gone before it could say so."), False
    if run.deployment_id is not None and run.run_count < ATTEMPTS:
        return AwaitingRetry(message=SOON), True
    return Crashed(message=GONE), False


def _end_jobs(settings: Settings, say: Say, grace_seconds: float) -> None:
    if not settings.ray_dashboard:
        return
    first = orphaned_jobs(settings)
    if not first:
        return
    time.sleep(grace_seconds / 2)  # somebody may just be taking it up
    for job in set(first) & set(orphaned_jobs(settings)):
        end_job(settings, job)
        say(f"Ray job {job.job_id}: ended; nobody followed it")


def _close_mlflow_runs(settings: Settings, dead: Collection[str], say: Say, grace_seconds: float) -> None:
    if not settings.tracking_uri and not (settings.home / "mlflow.db").exists():
        return
    try:
        for run in open_runs(settings.mlflow_uri):
            young = time.time() - run.started < grace_seconds
            if not young and (_is_abandoned(run, settings) or run.prefect_run in dead):
                close_run(settings.mlflow_uri, run.run_id)
                say(f"MLflow run {run.name}: RUNNING -> KILLED; nobody writes it")
    except FoundationError as away:
        say(str(away))


def _is_abandoned(run: OpenRun, settings: Settings) -> bool:
    """Whether it is the run of a stage whose folder is here and has no holder."""
    folders = list(settings.results.glob(f"{run.stage}/*-{run.key[:12]}"))
    return bool(folders) and not any(map(is_held, folders))
