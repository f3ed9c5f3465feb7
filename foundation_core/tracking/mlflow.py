"""MLflow: one run per pipeline with one child run per stage, reopened under the same id when the work goes on.

Every call names its run. MLflow's "active run" is never used: it belongs to a thread, and the thread that follows a
stage is not the one that opened its run.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from foundation_core.errors import FoundationError, TransientError
from foundation_core.files import PARTIAL, sha256_json
from foundation_core.tracking.base import METRICS, PREFIXES, check_metrics
from foundation_core.tracking.lineage import ACTION_KEY, PIPELINE, STAGE

Status = Literal["FINISHED", "FAILED", "KILLED"]

SQLITE = "sqlite:///"
PARENT = "mlflow.parentRunId"
DESCRIPTION = "mlflow.note.content"
DATA_CONTEXT = "mlflow.data.context"
# The limits of MLflow's stores.
PARAM_CHARACTERS = 6000
DIGEST_CHARACTERS = 36
BATCH_METRICS = 1000
BATCH_ENTRIES = 100
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Lets MLflow's pages begin with the view for training runs."""
_PASSING = ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED")


class MlflowRuns:
    """The runs of one experiment in one MLflow store.

    Args:
        tracking_uri: `sqlite:///...`, or the address of a server.
        artifact_root: where a new experiment keeps files; None leaves that to the server.
        experiment: its name; made when it is not there.
    """

    def __init__(self, tracking_uri: str, artifact_root: Path | None, experiment: str) -> None:
        self.tracking_uri = tracking_uri
        self._trackers: dict[str, MlflowTracker] = {}
        with reaching(tracking_uri):
            if tracking_uri.startswith(SQLITE):
                _make_database(Path(tracking_uri.removeprefix(SQLITE)))
            self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
            self._experiment = _experiment_id(self._client, experiment, artifact_root)

    def open_pipeline(self, name: str, key: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """The id of the pipeline's run: the unfinished one of this key, or a new one."""
        return self._open(name, key, params, {PIPELINE: name, **tags})

    def open_stage(self, parent: str, stage: str, key: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """The id of a stage's run below its parent: the unfinished one of this key, or a new one.

        A stage that another pipeline left unfinished moves below the new parent.
        """
        return self._open(stage, key, params, {STAGE: stage, PARENT: parent, **tags})

    def open_sweep(self, key: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """The id of a sweep's run, below which its points are: the one of this key, or a new one."""
        return self._open(f"sweep {key[:12]}", key, params, tags, finished=True)

    def open_point(self, sweep: str, name: str, key: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """The id of the run of a pipeline that is a point of a sweep: the one of this key, or a new one."""
        return self._open(name, key, params, {PARENT: sweep, **tags}, finished=True)

    def tracker(self, run_id: str) -> MlflowTracker:
        """The tracker of an open run; the same one each time."""
        if run_id not in self._trackers:
            self._trackers[run_id] = MlflowTracker(self._client, run_id)
        return self._trackers[run_id]

    def close(self, run_id: str, status: Status) -> None:
        """Write what waits, and give the run its status."""
        with reaching(self.tracking_uri):
            self.tracker(run_id).flush()
            self._client.set_terminated(run_id, status)
        del self._trackers[run_id]

    def _open(
        self, name: str, key: str, params: Mapping[str, Any], tags: Mapping[str, str], *, finished: bool = False
    ) -> str:
        """The id of an open run.

        Args:
            finished: whether one that is finished is opened again; if not, there will be one more of its key.
        """
        tags = {**tags, ACTION_KEY: key}
        which = "" if finished else " and attributes.status != 'FINISHED'"
        with reaching(self.tracking_uri):
            known = self._client.search_runs(
                [self._experiment], filter_string=f"tags.`{ACTION_KEY}` = '{key}'{which}", max_results=1
            )
            if known:
                run_id: str = known[0].info.run_id
                self._client.update_run(run_id, status="RUNNING")
            else:
                run_id = self._client.create_run(self._experiment, run_name=name).info.run_id
        tracker = self.tracker(run_id)
        tracker.tags(tags)
        tracker.params(params)
        return run_id


class MlflowTracker:
    """Writes one run. Figures wait for `flush`, so that following a stage costs few calls.

    A figure is logged once per step, whatever was replayed or done again: the store's own history decides where to
    go on. A figure without a step is the final one; it is logged again only with another value.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.run_id = run_id
        self._client = client
        self._waiting: list[Metric] = []
        with self._writing():
            run: Run = client.get_run(run_id)
        self._params: dict[str, str] = dict(run.data.params)
        self._description: str = run.data.tags.get(DESCRIPTION, "")
        self._stored: dict[str, float] = dict(run.data.metrics)
        self._last_steps: dict[str, int] = {}
        self._finals: dict[str, float] = {}

    def params(self, values: Mapping[str, Any]) -> None:
        """Log settings that the run does not have yet.

        MLflow's parameters cannot change. A reopened run may have other ones where they decide only the place (the
        number of workers): those are kept as tags `changed.<name>`.
        """
        texts = {name: _text(value) for name, value in values.items()}
        for name, text in texts.items():
            if len(text) > PARAM_CHARACTERS:
                with self._writing():
                    self._client.log_text(self.run_id, text, f"params/{name}.txt")
                texts[name] = _shortened(name, text)
        changed = {f"changed.{name}": text for name, text in texts.items() if self._params.get(name, text) != text}
        new = [Param(name, text) for name, text in texts.items() if name not in self._params]
        for start in range(0, len(new), BATCH_ENTRIES):
            with self._writing():
                self._client.log_batch(self.run_id, params=new[start : start + BATCH_ENTRIES])
        self._params |= {param.key: param.value for param in new}
        self.tags(changed)

    def metrics(self, values: Mapping[str, float], step: int | None = None, at: float | None = None) -> None:
        """Keep figures for the next `flush`; a step that the run already has is passed over."""
        check_metrics(values)
        milliseconds = int((at or time.time()) * 1000)
        for name, value in values.items():
            if step is None:
                if self._final(name) == value:
                    continue
                self._finals[name] = value
            elif step <= self._last_step(name):
                continue
            else:
                self._last_steps[name] = step
            self._waiting.append(Metric(name, float(value), milliseconds, step or 0))
        if len(self._waiting) >= BATCH_METRICS:
            self.flush()

    def dataset(self, name: str, facts: Mapping[str, Any]) -> None:
        """Log an input data set.

        Args:
            facts: `digest`, and `source` where it is not the name; all of them become its profile.
        """
        digest, source = str(facts["digest"]), _text(facts.get("source", name))
        dataset = Dataset(
            name=name,
            digest=digest[:DIGEST_CHARACTERS],
            source_type="local",
            source=json.dumps({"uri": source}),
            profile=json.dumps(dict(facts), default=str),
        )
        context = InputTag(DATA_CONTEXT, name.rpartition("/")[2])
        with self._writing():
            self._client.log_inputs(self.run_id, [DatasetInput(dataset, [context])])

    def artifact(self, path: Path, folder: str = "") -> None:
        """Upload a file, or a folder with all that is in it."""
        with self._writing():
            self._client.log_artifact(self.run_id, str(path), folder or None)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags; a tag that is there gets the new value."""
        tags = [RunTag(name, str(value)) for name, value in values.items()]
        for start in range(0, len(tags), BATCH_ENTRIES):
            with self._writing():
                self._client.log_batch(self.run_id, tags=tags[start : start + BATCH_ENTRIES])

    def flush(self) -> None:
        """Write the figures that wait, and the table of their units in the run's description.

        Raises:
            TransientError: the store did not answer; the figures wait on.
        """
        while self._waiting:
            batch = self._waiting[:BATCH_METRICS]
            with self._writing():
                self._client.log_batch(self.run_id, metrics=batch)
            del self._waiting[: len(batch)]
        units = units_table({*self._stored, *self._last_steps, *self._finals})
        if units and units != self._description:
            self.tags({DESCRIPTION: units})
            self._description = units

    def _last_step(self, name: str) -> int:
        if name not in self._last_steps:
            history = []
            if name in self._stored:
                with self._writing():
                    history = self._client.get_metric_history(self.run_id, name)
            self._last_steps[name] = max((metric.step for metric in history), default=-1)
        return self._last_steps[name]

    def _final(self, name: str) -> float | None:
        return self._finals.get(name, self._stored.get(name))

    def _writing(self) -> Any:
        return reaching(self._client.tracking_uri)


def units_table(names: set[str]) -> str:
    """A Markdown table of unit and meaning of the metrics of a run, for its description."""
    rows = []
    for name in sorted(names):
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        metric = PREFIXES[prefix] if prefix else METRICS[name]
        rows.append(f"| {prefix + '…' if prefix else name} | {metric.unit} | {metric.meaning} |")
    return "\n".join(["| metric | unit | meaning |", "| --- | --- | --- |", *dict.fromkeys(rows)]) if rows else ""


@contextmanager
def reaching(tracking_uri: str) -> Iterator[None]:
    """Turns MLflow's refusals into ours: a store that is away is worth another try."""
    try:
        yield
    except MlflowException as error:
        kind = TransientError if error.error_code in _PASSING else FoundationError
        raise kind(
            f"the MLflow store {tracking_uri} refused: {error.message}",
            fix="see that it runs and that its disk has room; what was not logged is replayed from events.jsonl",
        ) from error


def _make_database(path: Path) -> None:
    """Make the tables of a new SQLite store, whole or not at all.

    MLflow itself lets two processes make them at the same time, and a killed one leave half of them for ever.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not path.exists():
            partial = path.with_name(path.name + PARTIAL)
            partial.unlink(missing_ok=True)
            MlflowClient(tracking_uri=f"{SQLITE}{partial}")
            os.replace(partial, path)
    finally:
        os.close(folder)  # releases the lock


def _experiment_id(client: MlflowClient, name: str, artifact_root: Path | None) -> str:
    """The id of the experiment; made here unless another process made it in between."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            location = artifact_root.absolute().as_uri() if artifact_root else None
            return str(client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage == "deleted":  # somebody tidied up; a deleted experiment keeps its name for itself
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _text(value: Any) -> str:
    """A setting as text: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)


def _shortened(name: str, text: str) -> str:
    tail = f"… ({len(text)} characters, sha256 {sha256_json(text)[:12]}; whole in params/{name}.txt)"
    return text[: PARAM_CHARACTERS - len(tail)] + tail
