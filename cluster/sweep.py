"""A sweep: a recipe once for each value of one field, up to a stage, ranked by the validation of pretraining.

recipe x values -> points -> refusals, before anything starts -> [ session ] x points -> outcomes -> sweeps/<id>.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cluster.embedded import RayHead
from cluster.job import STAGES
from cluster.launch import ready_launcher
from cluster.planning import INPUTS, Step, plan, source_content_of
from cluster.preflight import preflight
from cluster.session import EXPERIMENT, SweepPoint, status_of
from cluster.settings import Settings
from foundation_core.errors import ConfigError, FoundationError
from foundation_core.files import read_json, sha256_json, write_json
from foundation_core.recipe import with_field
from foundation_core.specs import PipelineSpec, leaves
from foundation_core.store import Result, Store
from foundation_core.tracking.base import Figure, leading
from foundation_core.tracking.lineage import SWEEP, run_tags

if TYPE_CHECKING:
    from foundation_core.tracking.mlflow import Status

SWEPT_STAGES = ("ingest", "pretrain")
"""Whose fields can be swept: those that the validation of pretraining can tell apart."""
LAST_STAGES = ("pretrain", "finetune", "evaluate")
"""Where a sweep may end. Publishing would move the model's alias from point to point."""
RECORD_VERSION = 1


@dataclass(frozen=True)
class Point:
    """The recipe with one of the values.

    Args:
        value: as it can be written on the command line.
        source_content: content hash of the recipe's raw files.
    """

    value: str
    recipe: PipelineSpec
    source_content: str

    def steps(self, settings: Settings, last: str) -> list[Step]:
        """The plan of the point's stages."""
        return plan(self.recipe, Store(settings.results), self.source_content)[: list(INPUTS).index(last) + 1]


@dataclass(frozen=True)
class Outcome:
    """How a point ended.

    Args:
        best: of its pretraining's validations, at `best_step`; None if it failed.
        failure: why, in a line.
    """

    value: str
    best: Figure | None = None
    best_step: int | None = None
    failure: str = ""

    @staticmethod
    def of(value: str, trunk: Result) -> Outcome:
        """What a finished pretraining says."""
        return Outcome(value, leading(trunk.summary["best_validation"]), trunk.summary["best_step"])

    @staticmethod
    def read(row: Mapping[str, Any]) -> Outcome:
        """What a record says."""
        best = row["best"]
        return Outcome(**{**row, "best": None if best is None else Figure(*best)})

    @property
    def rank(self) -> float:
        """What outcomes are sorted by; failures come last."""
        return float("inf") if self.best is None else self.best.value


@dataclass(frozen=True)
class Sweep:
    """Which points there are, before any is made."""

    over: str
    last: str
    points: tuple[Point, ...]

    @property
    def id(self) -> str:
        """Twelve hex digits: the same for the same points, in whatever order and however their values are written."""
        return sha256_json({"over": self.over, "last": self.last, "points": sorted(map(self._work, self.points))})[:12]

    def name(self, point: Point) -> str:
        """The point, for people: `lr=0.002`."""
        return f"{self.over.rpartition('.')[2]}={point.value}"

    def _work(self, point: Point) -> str:
        """A digest of what decides the point's results."""
        stages = list(INPUTS)[: list(INPUTS).index(self.last) + 1]
        meanings = {stage: getattr(point.recipe, stage).meaning() for stage in stages}
        return sha256_json({"source": point.source_content, **meanings})

    def check_that_points_differ(self, values: Sequence[str]) -> None:
        """Refuse points that would have the same results.

        Args:
            values: those of the points, as somebody wrote them.

        Raises:
            ConfigError: two values are one piece of work.
        """
        seen: dict[str, str] = {}
        for point, text in zip(self.points, values, strict=True):
            work = self._work(point)
            if work in seen:
                raise ConfigError(
                    f"{self.over} {seen[work]} and {self.over} {text} have the same result",
                    allowed="different values, of a field that decides the result and not where or how wide it is made",
                )
            seen[work] = text

    def record(self, settings: Settings) -> Path:
        """The file that says how the sweep ended; it is not there before."""
        return settings.home / "sweeps" / f"{self.id}.json"

    def outcomes(self, settings: Settings) -> list[Outcome]:
        """How every point ended, once the sweep ran; empty before.

        Raises:
            DataError: the record was edited.
        """
        path = self.record(settings)
        return [Outcome.read(row) for row in read_json(path)["outcomes"]] if path.exists() else []

    def is_done(self, settings: Settings) -> bool:
        """Whether the sweep ran well, and every result of every point is there and known to MLflow."""
        outcomes = self.outcomes(settings)
        steps = [step for point in self.points for step in point.steps(settings, self.last)]
        well = bool(outcomes) and not any(outcome.failure for outcome in outcomes)
        return well and all(step.result is not None and step.result.ids for step in steps)


def plan_sweep(recipe: PipelineSpec, over: str, values: Sequence[str], last: str, settings: Settings) -> Sweep:
    """The sweep of a recipe over a field.

    Args:
        values: as they are written on the command line.

    Raises:
        FoundationError: a point cannot be, or cannot be told from another. Nothing was started.
    """
    if over.partition(".")[0] not in SWEPT_STAGES:
        raise ConfigError(
            f"{over} cannot be swept: points are ranked by the validation of pretraining, which does not feel it",
            allowed=f"a field of {' or '.join(SWEPT_STAGES)}, such as pretrain.optimizer.lr",
        )
    if last not in LAST_STAGES:
        raise ConfigError(f"a sweep cannot end with {last!r}", allowed=", ".join(LAST_STAGES))
    if not values:
        raise ConfigError("the sweep has no values", fix=f"write those that {over} shall have")
    points = []
    for text in values:
        varied = with_field(recipe, over, text)
        preflight(varied, settings)
        content = source_content_of(varied, settings.results)
        points.append(Point(_written(dict(leaves(varied))[over], text), varied, content))
    sweep = Sweep(over, last, tuple(points))
    sweep.check_that_points_differ(values)
    return sweep


def _written(value: Any, text: str) -> str:
    """A number in one way of the many in which it can be written; all else as it is."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else text


class OpenSweep:
    """The parts that all points of a sweep share, and the sweep's MLflow run; leaving it ends every process it started.

    Args:
        prefect_run: id of the Prefect flow run, for the tags.
    """

    def __init__(self, sweep: Sweep, settings: Settings, prefect_run: str = "") -> None:
        self._sweep, self._settings, self._prefect_run = sweep, settings, prefect_run
        self._local = ready_launcher(settings)
        self._head: RayHead | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sweep")

    def __enter__(self) -> Self:
        """Start what the points need; nobody waits yet. What an earlier try recorded is over."""
        self._sweep.record(self._settings).unlink(missing_ok=True)
        steps = [step for point in self._sweep.points for step in point.steps(self._settings, self._sweep.last)]
        if not self._settings.ray_dashboard and any(STAGES[step.stage].on_ray for step in steps if step.result is None):
            self._head = RayHead(self._settings)
        self._run = self._thread.submit(self._open_run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the sweep's MLflow run and end every part."""
        try:
            if self._run.exception() is None:
                status: Status = "FINISHED" if error is None else status_of(error)
                self._runs.close(self._run.result(), status)
        except FoundationError:
            pass  # the points said that MLflow is away; the same command closes the run later
        finally:
            self._local.end()
            if self._head is not None:
                self._head.end()
            self._thread.shutdown()

    def point(self, point: Point) -> SweepPoint:
        """What a session needs to be that point."""
        return SweepPoint(self._sweep.id, self._sweep.name(point), self._run, self._local, self._head)

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Write how the points ended.

        Raises:
            FoundationError: none of them ended well.
        """
        body = {"over": self._sweep.over, "last": self._sweep.last, "outcomes": [asdict(each) for each in outcomes]}
        write_json(self._sweep.record(self._settings), {"version": RECORD_VERSION, **body})
        if all(outcome.failure for outcome in outcomes):
            raise FoundationError(f"every value of {self._sweep.over} failed: {outcomes[0].failure}")

    def _open_run(self) -> str:
        from foundation_core.tracking.mlflow import MlflowRuns

        self._runs = MlflowRuns(self._settings.mlflow_uri, self._settings.mlflow_artifacts, EXPERIMENT)
        values = sorted(point.value for point in self._sweep.points)
        tags = {**run_tags("sweep", self._sweep.id, {"prefect_run": self._prefect_run}), SWEEP: self._sweep.id}
        return self._runs.open_sweep(self._sweep.id, {"over": self._sweep.over, "values": values}, tags)
