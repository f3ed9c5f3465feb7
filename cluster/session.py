"""One run of a pipeline: the parts it needs, and `run(stage)`, which is how every stage is done.

key -> found? reuse -> lease -> MLflow run -> job -> events -> result -> ids
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cluster.embedded import RayHead
from cluster.job import STAGES, Job
from cluster.launch import Event, LocalLauncher, RayLauncher, follow, ready_launcher
from cluster.leases import is_held, lease
from cluster.mirror import Mirror
from cluster.outage import follow_through_outages
from cluster.planning import plan, stage_key
from cluster.ray_jobs import is_more_than_this_machine
from cluster.settings import Settings
from cluster.stack import Stack
from cluster.stop import StopFile
from cluster.stopping import job_of
from foundation_core.errors import FoundationError, Stopped
from foundation_core.files import sha256_json
from foundation_core.identity import ActionKey
from foundation_core.specs import PipelineSpec, leaves
from foundation_core.store import Result, Store, record_ids
from foundation_core.tracking.lineage import CONTENT_HASH, SWEEP, SWEEP_POINT, git_commit, run_tags

if TYPE_CHECKING:
    from foundation_core.tracking.mlflow import MlflowRuns, Status

EXPERIMENT = "foundation"
PATH_FIELDS = ("path", "bad_words", "store", "address", "cache_folder")
"""Fields that name a file or folder, in whatever spec they stand."""
Report = Callable[[str, Event], None]
"""Told of every event of every stage: (stage, event)."""


@dataclass(frozen=True)
class SweepPoint:
    """What makes a session a point of a sweep: it uses parts that the sweep started and will end.

    Args:
        sweep: id of the sweep.
        name: names the point's MLflow run: `lr=0.002`.
        parent: id of the sweep's MLflow run, once that is open.
        local: runs the local stages of all points.
        head: runs the other stages of all points; None where a cluster is named.
    """

    sweep: str
    name: str
    parent: Future[str]
    local: LocalLauncher
    head: RayHead | None


class Session:
    """What one run of a recipe holds; leaving it ends every process it started.

    Args:
        report: told of every event.
        last: the last stage that is wanted; nothing is started for those behind it.
        prefect_run: id of the Prefect flow run, for the tags.
        point: what the session shares with others, if it is one of a sweep.
    """

    def __init__(
        self,
        recipe: PipelineSpec,
        settings: Settings,
        source_content: str,
        report: Report,
        last: str = "publish",
        prefect_run: str = "",
        point: SweepPoint | None = None,
    ) -> None:
        self.recipe, self.settings, self.source_content = recipe, settings, source_content
        self._wanted = list(STAGES)[: list(STAGES).index(last) + 1]
        self.store = Store(settings.results)
        self._report, self._prefect_run = report, prefect_run
        self._commit = settings.git_commit or git_commit(Path(__file__).parent)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="session")
        self._point = point
        self._sweep_tags = {SWEEP: point.sweep, SWEEP_POINT: point.name} if point else {}
        self._local = point.local if point else ready_launcher(settings)
        self._head: RayHead | None = None
        self._due_on_ray: list[str] = []
        self.at_work: Path | None = None
        """Folder of the stage that is at work, or that failed."""
        self._ray: Future[RayLauncher] | None = None
        self._joins: Future[bool] | None = None

    def __enter__(self) -> Self:
        """Start what the coming stages need, all at once; nobody waits yet."""
        steps = plan(self.recipe, self.store, self.source_content)
        due = [step.stage for step in steps if step.result is None and step.stage in self._wanted]
        if "ingest" in due:
            self._local.warm("ingest")
        self._due_on_ray = [stage for stage in due if STAGES[stage].on_ray]
        if self.settings.ray_dashboard and any(STAGES[stage].on_cluster for stage in due):
            self._joins = self._threads.submit(is_more_than_this_machine, self.settings.ray_dashboard)
        if self._due_on_ray or self._joins:
            if not self.settings.ray_dashboard and not (self._point and self._point.head):
                self._head = RayHead(self.settings)
            self._ray = self._threads.submit(self._connect_to_ray)
        self._runs = self._threads.submit(self._open_mlflow)
        self._parent = self._threads.submit(self._open_parent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pipeline's MLflow run and end every part."""
        try:
            status: Status = "FINISHED" if error is None else status_of(error)
            if self._parent.exception() is None:
                self._runs.result().close(self._parent.result(), status)
        except FoundationError as away:  # every result is committed; the next run closes what stays open
            self._report("pipeline", {"kind": "say", "text": str(away)})
        finally:
            if self._point is None:
                self._local.end()
            self._end_ray()
            self._threads.shutdown()

    @property
    def pipeline_run(self) -> str:
        """The id of the pipeline's MLflow run."""
        return self._parent.result()

    def note(self, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Log final figures and tags on the pipeline's MLflow run; they are given up if MLflow is away."""
        try:
            tracker = self._runs.result().tracker(self.pipeline_run)
            tracker.metrics(metrics)
            tracker.tags(tags)
        except FoundationError as away:
            self._report("pipeline", {"kind": "say", "text": str(away)})

    def stop(self) -> None:
        """Ask the stage at work to save and to end with `Stopped`; called by another thread than the one in `run`."""
        if self.at_work is not None:
            StopFile(self.at_work).request()

    def run(self, stage: str, inputs: Mapping[str, Result]) -> Result:
        """The result of a stage: found by its key, or made now, or made by somebody else who is at it.

        Raises:
            FoundationError: what the stage raised.
        """
        key = stage_key(self.recipe, stage, inputs, self.source_content)
        folder = self.store.folder(self.recipe.name, key)
        while True:
            found = self.store.find(key)
            if found is not None and found.ids:
                self._report(stage, {"kind": "reused", "folder": str(folder)})
                return found
            with lease(folder) as mine:
                if mine:  # who held it before may just have finished: look again
                    found = self.store.find(key)
                    return found if found and found.ids else self._make(stage, key, folder, inputs, found)
            self._report(stage, {"kind": "say", "text": "somebody else is at this stage; waiting for the result"})
            while is_held(folder):
                time.sleep(0.5)

    def _make(
        self, stage: str, key: ActionKey, folder: Path, inputs: Mapping[str, Result], found: Result | None
    ) -> Result:
        """Do the work of a stage whose lease we hold, and close its MLflow run in every case."""
        ids = {"prefect_run": self._prefect_run, "git_commit": self._commit}
        mirror = Mirror(folder, self._runs, lambda runs: self._open_stage(runs, stage, key, ids))
        try:
            if found is None:  # else it was committed by a launcher that died before it could say so
                ids["ray_job"] = self._launch(stage, key, folder, inputs, mirror)
        except BaseException as error:
            mirror.close(status_of(error))
            raise
        result = self.store.find(key)
        assert result is not None, f"{stage} ended well and committed nothing in {folder}"
        tags = {**run_tags(stage, key.digest, ids), CONTENT_HASH: result.content}
        if mirror.close("FINISHED", tags):
            ids["mlflow_run"] = mirror.run_id.result()
            record_ids(folder, {name: value for name, value in ids.items() if value})
        else:
            self._report(stage, {"kind": "say", "text": "MLflow was away: run again, and it gets what it missed"})
        found = self.store.find(key)
        assert found is not None
        return found

    def _launch(self, stage: str, key: ActionKey, folder: Path, inputs: Mapping[str, Result], mirror: Mirror) -> str:
        """Run the stage's job to its end; the id of its Ray job, or "" where it was none."""
        on_ray = self._goes_to_ray(stage, folder)
        spec = getattr(self.recipe, stage).model_dump(mode="json")
        environment = {"FOUNDATION_TRACKING_URI": self.settings.mlflow_uri}
        if stage == "publish":
            environment["FOUNDATION_RUN_ID"] = mirror.run_id.result()
        job = Job(
            stage=stage,
            spec=with_whole_paths(spec) if on_ray else spec,
            inputs={role: str(result.folder) for role, result in inputs.items()},
            folder=str(folder),
            key={"digest": key.digest, "parts": dict(key.parts)},
            environment=environment,
            on_ray=on_ray,
        )
        self._report(stage, {"kind": "launch", "folder": str(folder)})
        launcher = self._ray.result() if on_ray and self._ray else self._local
        if stage == "finetune":
            self._local.warm("evaluate")
            self._local.warm("publish")
        self.at_work = folder
        job_id = self._follow(launcher, job, lambda event: self._report(stage, event))
        self.at_work = None
        if self._due_on_ray[-1:] == [stage]:  # it takes a second to leave, and what follows has use for its memory
            self._threads.submit(self._end_ray)
        return job_id if on_ray else ""

    def _follow(self, launcher: LocalLauncher | RayLauncher, job: Job, report: Callable[[Event], None]) -> str:
        """Run a job to its end, also through the absence of a cluster that outlives this run; its id."""
        address = self.settings.ray_dashboard
        if not address or not isinstance(launcher, RayLauncher):
            return follow(launcher, job, report)
        own = Stack(self.settings).owns(address)
        brings_back = "`foundation up` brings it back" if own else "the run goes on when that cluster answers again"
        return follow_through_outages(launcher, job, report, brings_back)

    def _goes_to_ray(self, stage: str, folder: Path) -> bool:
        """Whether a stage is a Ray job: always, or because the cluster has more than this machine, or had it when a job
        began that still works in this folder."""
        entry = STAGES[stage]
        if entry.on_ray or not entry.on_cluster or self._joins is None:
            return entry.on_ray
        return self._joins.result() or bool(job_of(folder, self.settings))

    def _end_ray(self) -> None:
        head, self._head = self._head, None
        if head is not None:
            head.end()

    def _connect_to_ray(self) -> RayLauncher:
        head = self._point.head if self._point and self._point.head else self._head
        if head is not None:
            head.wait()
            os.environ.update(head.environment)
        return RayLauncher(head.address if head else self.settings.ray_dashboard)

    def _open_mlflow(self) -> MlflowRuns:
        from foundation_core.tracking.mlflow import MlflowRuns

        return MlflowRuns(self.settings.mlflow_uri, self.settings.mlflow_artifacts, EXPERIMENT)

    def _open_parent(self) -> str:
        work = {"recipe": self.recipe.model_dump(mode="json"), "source": self.source_content}
        key = sha256_json(self._sweep_tags or work)
        tags = run_tags("pipeline", key, {"prefect_run": self._prefect_run, "git_commit": self._commit})
        runs, params = self._runs.result(), dict(leaves(self.recipe))
        if self._point is None:
            return runs.open_pipeline(self.recipe.name, key, params, tags)
        return runs.open_point(self._point.parent.result(), self._point.name, key, params, tags | self._sweep_tags)

    def _open_stage(self, runs: MlflowRuns, stage: str, key: ActionKey, ids: Mapping[str, str]) -> str:
        params = dict(leaves(getattr(self.recipe, stage)))
        tags = run_tags(stage, key.digest, ids) | self._sweep_tags
        return runs.open_stage(self.pipeline_run, stage, key.digest, params, tags)


def with_whole_paths(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a stage, as JSON has it, with paths from the root: a Ray job works in another folder than we do."""
    return {name: _whole(name, value) for name, value in spec.items()}


def _whole(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return with_whole_paths(value)
    if isinstance(value, list):
        return [_whole(name, each) for each in value]
    is_path = name in PATH_FIELDS and isinstance(value, str) and "://" not in value
    return str(Path(value).expanduser().absolute()) if is_path else value


def status_of(error: BaseException) -> Status:
    """The MLflow status of work that an error ended: what a person stopped is KILLED, all else FAILED."""
    return "KILLED" if isinstance(error, Stopped) or not isinstance(error, Exception) else "FAILED"
