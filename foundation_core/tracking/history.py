"""Which pipelines an MLflow store knows: read only, nothing is made where nothing is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow.tracking import MlflowClient

from foundation_core.tracking.lineage import PIPELINE, PREFECT_RUN
from foundation_core.tracking.mlflow import SQLITE, reaching


@dataclass(frozen=True)
class PipelineRun:
    """A pipeline's run in MLflow.

    Args:
        status: MLflow's word: RUNNING, FINISHED, FAILED or KILLED.
        started: seconds since the epoch.
        seconds: to its end; 0.0 while it has none.
        prefect_run: id of its flow run; empty without one.
    """

    run_id: str
    name: str
    status: str
    started: float
    seconds: float
    prefect_run: str


def pipeline_runs(tracking_uri: str, experiment: str, last: int) -> list[PipelineRun]:
    """The latest pipelines, newest first.

    Args:
        tracking_uri: `sqlite:///...`, or the address of a server.

    Raises:
        FoundationError: the store refused or is away.
    """
    if tracking_uri.startswith(SQLITE) and not Path(tracking_uri.removeprefix(SQLITE)).exists():
        return []
    with reaching(tracking_uri):
        client = MlflowClient(tracking_uri=tracking_uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return []
        runs = client.search_runs(
            [found.experiment_id],
            filter_string=f"tags.`{PIPELINE}` LIKE '%'",
            max_results=last,
            order_by=["attributes.start_time DESC"],
        )
    return [
        PipelineRun(
            run_id=run.info.run_id,
            name=run.data.tags[PIPELINE],
            status=run.info.status,
            started=run.info.start_time / 1000,
            seconds=(run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else 0.0,
            prefect_run=run.data.tags.get(PREFECT_RUN, ""),
        )
        for run in runs
    ]
