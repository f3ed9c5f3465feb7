"""A trained model becomes a registered one.

    stage folders -> package (files, digests, stored example) -> MLflow model -> reload -> compare -> log -> register

Nothing reaches MLflow before the reloaded model has answered the stored example as the trained one did.
"""

from __future__ import annotations

import base64
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas
from mlflow.entities import LoggedModelOutput, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import load_model, save_model
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, DataType

from foundation_core.adapt.transfer import MODEL_FILE, WEIGHTS_FILE, Pretrained
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE
from foundation_core.data.values.features import FEATURES_FILE
from foundation_core.errors import CheckpointError
from foundation_core.files import read_json, sha256_file, sha256_json, write_json
from foundation_core.store import Result
from foundation_core.tracking.lineage import GIT_COMMIT, PIPELINE_RUN
from foundation_core.tracking.mlflow import PARENT, reaching
from foundation_core.tracking.pyfunc import (
    PACKAGE_FILE,
    PACKAGE_VERSION,
    TASK_MODEL_FILE,
    TASK_WEIGHTS_FILE,
    read_model,
)
from foundation_core.tracking.served import TEXT, ServedModel
from foundation_core.tracking.wheel import PROJECT, build_wheel, pinned
from foundation_core.tracking.writes import PARAMS

LOADER = "foundation_core.tracking.pyfunc"
EXAMPLE_FILE = "example.json"
EXAMPLE_TEXTS = ("import os\n\n\ndef ", "class Error(Exception):\n    ")
EXAMPLE_TOKENS = 16
TOLERANCE = 1e-4
"""How far the reloaded figures (bits per byte, probabilities) may lie from the stored ones; texts must be equal."""
TYPES: Mapping[str, Any] = {"doubles": Array(DataType.double)}
_BASE64 = "base64:"
MODEL_URI = "models:/"
DESCRIPTION_CHARACTERS = 5000
"""What MLflow's registry keeps of a version's description."""
PACKAGE_HASH = "foundation.package_hash"
MODEL_VERSIONS = "mlflow.modelVersions"
"""MLflow's own tag, by which the page of a logged model links to its versions."""


@dataclass(frozen=True)
class Target:
    """Where a model goes: the store, the run that made it, and its name there."""

    tracking_uri: str
    run_id: str
    model_name: str
    alias: str


@dataclass(frozen=True)
class Registered:
    """A version in the registry, and the logged model behind it."""

    version: str
    model_id: str


def build_package(folder: Path, inputs: Mapping[str, Result]) -> str:
    """The hash of a new folder with everything that the model needs; `package.json`, its last file, has the digests.

    Args:
        inputs: corpus, trunk and, if there is a task model, task.
    """
    corpus, trunk, task = inputs["corpus"], inputs["trunk"], inputs.get("task")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for result, name in ((trunk, MODEL_FILE), (trunk, WEIGHTS_FILE)):
        _copy(result, name, folder / name)
    for name in (TOKENIZER_FILE, FEATURES_FILE):
        if name in corpus.outputs:
            _copy(corpus, name, folder / name)
    pretrained = Pretrained.find(trunk.folder, trunk.outputs[WEIGHTS_FILE])
    objective = trunk.parts["spec"]["objective"]
    trained = read_model(folder, pretrained, objective, None if task is None else _pack_task_model(folder, task))
    write_json(folder / EXAMPLE_FILE, _stored_example(trained))
    build_wheel(folder / "wheel")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}
    write_json(folder / PACKAGE_FILE, {"version": PACKAGE_VERSION, "objective": objective, "files": files})
    return sha256_json(files)


def save_mlflow_model(package: Path, folder: Path, run_id: str) -> None:
    """Wrap a package as an MLflow model: loader, signature, input example and requirements; no code, no pickle.

    The requirements are said, not inferred: to infer them, MLflow would load the model in another process.
    """
    shutil.rmtree(folder, ignore_errors=True)
    example = read_json(package / EXAMPLE_FILE)
    wheels = [f"data/{path.relative_to(package.parent).as_posix()}" for path in package.glob("wheel/*.whl")]
    save_model(
        path=str(folder),
        loader_module=LOADER,
        data_path=str(package),
        mlflow_model=Model(run_id=run_id),
        signature=_signature(example),
        input_example=(_table(example["rows"][:1]), {"max_tokens": EXAMPLE_TOKENS}),
        pip_requirements=[*pinned(), *(wheels or [f"{PROJECT}=={version(PROJECT)}"])],
    )


def _signature(example: Mapping[str, Any]) -> ModelSignature:
    """What the model takes and gives; which of the columns it gives depends on the task that it is asked."""
    table = _table(example["rows"])
    several = len(table.columns) > 1
    inputs = [ColSpec(_type(table[name].dropna().iloc[0]), name, required=not several) for name in table.columns]
    outputs = [ColSpec(TYPES.get(kind, kind), name, required=False) for name, kind in example["columns"].items()]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs), params=params_schema())


def params_schema() -> ParamSchema:
    """What a caller may choose, and nothing chosen."""
    return ParamSchema(
        [ParamSpec(name, of.kind, of.unsaid, (-1,) if of.several else None) for name, of in PARAMS.items()]
    )


def _type(value: Any) -> Any:
    if isinstance(value, str):
        return "string"
    return "binary" if isinstance(value, bytes) else Array(Array(DataType.double))


def compare(folder: Path) -> float:
    """The largest difference between the answers of an MLflow model, freshly loaded, and those stored in it.

    Raises:
        CheckpointError: a file was edited, or an answer differs by more than `TOLERANCE`.
    """
    model = load_model(str(folder), suppress_warnings=True)
    example = read_json(next(folder.glob(f"data/*/{EXAMPLE_FILE}")))
    largest = 0.0
    for task, stored in example["answers"].items():
        asked = {**example["params"], "task": task}
        rows = _rows_of(example["rows"], example["inputs"][task])
        answers = model.predict(_table(rows), asked).to_dict("records")
        for row, before, now in zip(rows, stored, answers, strict=True):
            difference = max(_difference(before[name], now[name]) for name in before)
            if not difference <= TOLERANCE:
                raise CheckpointError(
                    f"the reloaded model answers {task} of {str(row)[:200]} with {now}",
                    allowed=f"{before}, figures within {TOLERANCE}",
                    fix="nothing was registered; run publish again, and if it stays so, the package loses something",
                )
            largest = max(largest, difference)
    return largest


def register(folder: Path, package_hash: str, target: Target, tags: Mapping[str, str], card: str) -> Registered:
    """The registered version of an MLflow model that was compared; the one that is there if this run made it already.

    Args:
        folder: the MLflow model.
        tags: what leads back to the stages that it was made from.
        card: Markdown, the version's description.
    """
    # A registry without a server looks `models:/` up in the store of the process.
    mlflow.set_tracking_uri(target.tracking_uri)
    with reaching(target.tracking_uri):
        client = MlflowClient(tracking_uri=target.tracking_uri, registry_uri=target.tracking_uri)
        registered = _registered_before(client, package_hash, target)
        if registered is None:
            run = client.get_run(target.run_id)
            tags = {**tags, **_ties(run), PACKAGE_HASH: package_hash}
            model_id = _log(client, folder, target, run, tags)
            registered = _create_version(client, model_id, target, tags, card)
        client.set_registered_model_alias(target.model_name, target.alias, registered.version)
    return registered


def _pack_task_model(folder: Path, task: Result) -> tuple[Path, str]:
    """Copy the best pretrained task model into the package; what is returned is where it was trained, and its hash.

    The arm was chosen on validation, over its seeds; the test had no say in it.
    """
    arm = task.summary["best_arm"]
    weights = f"weights/{arm}.safetensors"
    _copy(task, weights, folder / TASK_WEIGHTS_FILE)
    described = {"spec": task.parts["spec"], "classes": task.summary["classes"], "arm": arm}
    write_json(folder / TASK_MODEL_FILE, described)
    return task.folder / weights, task.outputs[weights]


def _copy(result: Result, name: str, path: Path) -> None:
    """Copy an output of a stage, if it is still what the stage wrote."""
    shutil.copyfile(result.folder / name, path)
    if (found := sha256_file(path)) != result.outputs[name]:
        raise CheckpointError(
            f"{result.folder / name} has sha256 {found}",
            allowed=result.outputs[name],
            fix=f"it was edited after {result.stage} wrote it: restore it, or remove its folder and run again",
        )


def _stored_example(model: ServedModel) -> dict[str, Any]:
    """Rows that the model can be asked, and its answers; bytes as base64."""
    features = model.features
    rows: list[dict[str, Any]] = [{TEXT: text} for text in EXAMPLE_TEXTS] if TEXT in model.inputs else []
    if features is not None:
        item = features.modality.example()
        rows.insert(0, {features.name: _BASE64 + base64.b64encode(item).decode() if isinstance(item, bytes) else item})
    params = {"max_tokens": EXAMPLE_TOKENS, "temperature": 0.0}
    answers, inputs = {}, {task: model.inputs_of(task) for task in model.tasks}
    for task in model.tasks:
        asked = _table(_rows_of(rows, inputs[task]))
        answers[task] = model.predict(asked, {**params, "task": task}).to_dict("records")
    return {"rows": rows, "inputs": inputs, "params": params, "columns": model.columns, "answers": answers}


def _rows_of(rows: list[dict[str, Any]], columns: list[str]) -> list[dict[str, Any]]:
    """The rows of an example that have one of the columns."""
    return [row for row in rows if set(row) & set(columns)]


def _table(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    """The rows of an example as a caller would send them."""

    def sent(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(_BASE64):
            return base64.b64decode(value.removeprefix(_BASE64))
        return value

    return pandas.DataFrame([{name: sent(value) for name, value in row.items()} for row in rows])


def _difference(before: Any, now: Any) -> float:
    if isinstance(before, str):
        return 0.0 if before == now else math.inf
    if isinstance(before, list):
        return max(_difference(one, other) for one, other in zip(before, now, strict=True))
    return abs(float(before) - float(now))


def _registered_before(client: MlflowClient, package_hash: str, target: Target) -> Registered | None:
    """The version that an interrupted publish of the same run left."""
    found = client.search_model_versions(f"name = '{target.model_name}' and run_id = '{target.run_id}'")
    same = [entry for entry in found if entry.tags.get(PACKAGE_HASH) == package_hash]
    return Registered(str(same[0].version), same[0].source.removeprefix(MODEL_URI)) if same else None


def _ties(run: Run) -> dict[str, str]:
    """The tags that tie a run to its pipeline, Prefect run, Ray job and commit."""
    tags: dict[str, str] = run.data.tags
    ties = {name: value for name, value in tags.items() if name.startswith("foundation.") or name == GIT_COMMIT}
    return {**ties, PIPELINE_RUN: tags[PARENT]} if PARENT in tags else ties


def _log(client: MlflowClient, folder: Path, target: Target, run: Run, tags: Mapping[str, str]) -> str:
    """The id of the model, logged as the run's output with all its files; what an interruption left is completed."""
    same = f"source_run_id = '{target.run_id}' and tags.`{PACKAGE_HASH}` = '{tags[PACKAGE_HASH]}'"
    experiment = run.info.experiment_id
    found = client.search_logged_models([experiment], filter_string=same) or [
        client.create_logged_model(experiment, target.model_name, target.run_id, dict(tags), model_type="foundation")
    ]
    logged = found[0]
    model = Model.load(str(folder))
    model.model_id = model.model_uuid = logged.model_id
    model.artifact_path = logged.artifact_location
    model.save(str(folder / "MLmodel"))
    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    if logged.model_id not in [output.model_id for output in run.outputs.model_outputs]:
        client.log_outputs(target.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def _create_version(
    client: MlflowClient, model_id: str, target: Target, tags: Mapping[str, str], card: str
) -> Registered:
    try:
        client.create_registered_model(target.model_name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source, text = MODEL_URI + model_id, description(card)
    made = client.create_model_version(
        target.model_name, source, target.run_id, dict(tags), description=text, model_id=model_id
    )
    link = [{"name": made.name, "version": made.version}]
    client.set_logged_model_tags(model_id, {MODEL_VERSIONS: json.dumps(link)})
    return Registered(str(made.version), model_id)


def description(card: str) -> str:
    """The card, or as many of its first lines as the registry keeps, and where the whole of it is."""
    if len(card) <= DESCRIPTION_CHARACTERS:
        return card
    pointer = "\n\n(The whole card is the run's artifact `cards/model_card.md`.)\n"
    return card[: DESCRIPTION_CHARACTERS - len(pointer)].rpartition("\n")[0] + pointer
