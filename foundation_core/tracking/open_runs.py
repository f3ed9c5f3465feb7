"""Runs that MLflow calls running: found, and closed where nobody writes them any more."""

from __future__ import annotations

from typing import NamedTuple

from mlflow.tracking import MlflowClient

from foundation_core.tracking.lineage import ACTION_KEY, PREFECT_RUN, STAGE
from foundation_core.tracking.mlflow import reaching


class OpenRun(NamedTuple):
    """A run that was not closed.

    Args:
        key: digest of the action key of its stage, or of the recipe for a pipeline's run.
        started: when it was opened first, seconds since the epoch.
    """

    run_id: str
    name: str
    stage: str
    key: str
    prefect_run: str
    started: float


def open_runs(tracking_uri: str) -> list[OpenRun]:
    """Every run of ours with status RUNNING.

    Raises:
        TransientError: the store did not answer.
    """
    with reaching(tracking_uri):
        client = MlflowClient(tracking_uri=tracking_uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        condition = "attributes.status = 'RUNNING'"
        found = client.search_runs(experiments, filter_string=condition) if experiments else []
    return [
        OpenRun(
            run_id=run.info.run_id,
            name=run.info.run_name,
            stage=run.data.tags[STAGE],
            key=run.data.tags[ACTION_KEY],
            prefect_run=run.data.tags.get(PREFECT_RUN, ""),
            started=run.info.start_time / 1000,
        )
        for run in found
        if ACTION_KEY in run.data.tags and STAGE in run.data.tags
    ]


def close_run(tracking_uri: str, run_id: str) -> None:
    """Give a run the status KILLED; the same work reopens it under the same id."""
    with reaching(tracking_uri):
        MlflowClient(tracking_uri=tracking_uri).set_terminated(run_id, "KILLED")
