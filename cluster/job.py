"""The entry point of every job: `python -m cluster.job JOB.json`, in a local process or as a Ray job.

    JOB.json -> spec, inputs, context -> the stage function -> result.json -> the event `end`

`python -m cluster.job RECIPE.yaml [--dotted.field value ...]` runs all stages of a recipe, each by a job of its own.
`python -m cluster.job --serve` does as the first for each job path that it reads from its standard input, so that a
process which has its imports behind it can take one stage after the other.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster.stop import StopFile
from foundation_core import specs
from foundation_core.errors import DataError, FoundationError, Stopped, as_foundation_error
from foundation_core.events import EventLog
from foundation_core.files import read_json, remove_partial, write_json
from foundation_core.identity import ActionKey
from foundation_core.store import RESULT_FILE, commit_result, load_result

JOB_FILE = "job.json"


@dataclass(frozen=True)
class StageEntry:
    """How a stage is found and run.

    Args:
        ranks: whether every data-parallel worker runs the stage function together.
        on_ray: whether it is a Ray job always; the others run in a local process.
        on_cluster: whether it is one where a cluster has more than this machine: on one machine, local processes begin
            at once and do as much.
        warm: modules that a waiting process may import ahead.
    """

    function: str
    spec: type[specs.Spec]
    ranks: bool = False
    on_ray: bool = False
    on_cluster: bool = False
    warm: tuple[str, ...] = ()


STAGES: Mapping[str, StageEntry] = {
    "ingest": StageEntry("foundation_core.stages.ingest:ingest", specs.IngestSpec, on_cluster=True),
    "pretrain": StageEntry("foundation_core.stages.pretrain:pretrain", specs.PretrainSpec, ranks=True, on_ray=True),
    "finetune": StageEntry("foundation_core.stages.finetune:finetune", specs.FinetuneSpec, on_ray=True),
    "evaluate": StageEntry(
        "foundation_core.stages.evaluate:evaluate",
        specs.EvaluateSpec,
        warm=("sklearn.linear_model", "safetensors.torch"),
    ),
    "publish": StageEntry(
        "foundation_core.stages.publish:publish", specs.PublishSpec, warm=("mlflow.pyfunc", "matplotlib.pyplot")
    ),
}


@dataclass(frozen=True)
class Job:
    """All that a job needs, as JSON: it may run on another machine that sees the same folders.

    Args:
        module: its entry point, `python -m MODULE JOB.json`.
        on_ray: whether it is a job of a Ray cluster, and its pieces of work are tasks there.
    """

    stage: str
    spec: dict[str, Any]
    inputs: dict[str, str]
    folder: str
    key: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    module: str = "cluster.job"
    on_ray: bool = False

    def write(self) -> Path:
        """Write the job into its folder; the path of the file."""
        path = Path(self.folder) / JOB_FILE
        write_json(path, asdict(self))
        return path

    @staticmethod
    def read(path: Path) -> Job:
        """The job that `write` wrote.

        Raises:
            DataError: the file holds no job.
        """
        body = read_json(path)
        try:
            return Job(**body)
        except TypeError as error:
            raise DataError(f"{path} is not a job: {error}") from error

    def typed_spec(self) -> specs.Spec:
        """The spec, validated again: a job file may have been written by hand."""
        return STAGES[self.stage].spec.model_validate(self.spec)

    def action_key(self) -> ActionKey:
        """The key under which the result is committed."""
        return ActionKey(self.stage, self.key["digest"], self.key["parts"])


def run(job: Job) -> int:
    """Run a job to its end and say how it went in the event log; the exit status."""
    folder = Path(job.folder)
    events = EventLog(folder)
    os.environ.update(job.environment)
    remove_partial(folder)

    def work() -> None:
        if (folder / RESULT_FILE).exists():
            return  # of a job whose shell was killed and that nobody followed any more: it was through while we came
        if STAGES[job.stage].ranks:
            from cluster.ray_train import run_ranks

            run_ranks(job)
        else:
            _run_alone(job, events)

    return reported(events, work)


def reported(events: EventLog, work: Callable[[], None]) -> int:
    """Do the work of a job and say how it ended in the event log; the exit status."""
    try:
        work()
    except Stopped as stopped:
        error = StopFile(events.path.parent).ended_by(stopped)
        events.write("end", status="stopped", error=error.to_json())
        return error.exit_code
    except FoundationError as error:
        events.write("end", status="failed", error=error.to_json())
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        events.write("end", status="failed", error=as_foundation_error(error).to_json())
        return 1
    events.write("end", status="done")
    return 0


def _run_alone(job: Job, events: EventLog) -> None:
    from cluster.pools import ProcessPool, RayPool
    from cluster.system_metrics import system_metrics
    from foundation_core.stages.contract import Context
    from foundation_core.tracking.base import EventTracker
    from foundation_core.train.engine import TorchEngine

    if job.on_ray:
        from cluster.ray_jobs import join_cluster

        join_cluster(Path(job.folder))
    context = Context(
        folder=Path(job.folder),
        tracker=EventTracker(events),
        events=events,
        stop=StopFile(Path(job.folder)),
        pool=RayPool(events.say) if job.on_ray else ProcessPool(events.say),
        engine=TorchEngine,
        shared=Path(job.folder).parents[1],
    )
    with system_metrics(context.tracker, context.folder):
        result = call_stage(job, context)
    commit_result(context.folder, job.action_key(), result)


def call_stage(job: Job, context: Any) -> Any:
    """What the stage function of the job returns."""
    module, name = STAGES[job.stage].function.split(":")
    inputs = {role: load_result(Path(folder)) for role, folder in job.inputs.items()}
    return getattr(importlib.import_module(module), name)(job.typed_spec(), inputs, context)


def _serve() -> int:
    """Run the jobs whose paths come in on standard input, one after the other; `warm STAGE` imports ahead."""
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "warm":
            for module in (STAGES[argument].function.split(":")[0], *STAGES[argument].warm):
                importlib.import_module(module)
        elif command == "run":
            job = Job.read(Path(argument))
            stop = StopFile(Path(job.folder))
            stop.request_on_signals()
            status = run(job)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
                signal.signal(number, signal.SIG_DFL)  # between jobs there is nothing to save
            if stop.requested():
                return status
    return 0


def main(argv: list[str]) -> int:
    """Run one job, or serve, or run the jobs of a recipe."""
    if argv == ["--serve"]:
        return _serve()
    if argv and argv[0].endswith((".yaml", ".yml")):
        from cluster.recipe_job import run_recipe

        return run_recipe(argv[0], argv[1:])
    if len(argv) != 1:
        usage = "python -m cluster.job JOB.json | RECIPE.yaml [--dotted.field value ...] | --serve"
        print(f"usage: {usage}", file=sys.stderr)
        return 2
    try:
        job = Job.read(Path(argv[0]))
    except DataError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    StopFile(Path(job.folder)).request_on_signals()
    return run(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
