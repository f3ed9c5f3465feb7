"""A published model, found by the name that people give it, and loaded without a server.

    MODEL -> version -> files -> ServedModel

`NAME` is the version with the alias `candidate`, or the latest one; `NAME@alias` and `NAME/3` say which. The same with
`models:/` in front, and a local folder that MLflow saved a model to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import load_model
from mlflow.tracking import MlflowClient

from foundation_core.errors import ConfigError
from foundation_core.tracking.mlflow import SQLITE, reaching
from foundation_core.tracking.package import LOADER, MODEL_URI
from foundation_core.tracking.served import ServedModel

MODEL_FILE = "MLmodel"
DEFAULT_ALIAS = "candidate"
_LOGGED_MODEL = re.compile(r"m-[0-9a-f]{32}")
"""How MLflow names a logged model, which has no version."""


@contextmanager
def model_files(model: str, tracking_uri: str, beside: Path | None = None) -> Iterator[Path]:
    """The folder of a published model, for the time of the block; a local one is used where it lies.

    Args:
        model: what a person wrote, as at the top of this module.
        beside: where a copy goes; None: the machine's folder for temporary files, which no other machine sees.

    Raises:
        ConfigError: there is no such model; the message says which there are.
        TransientError: the store does not answer.
    """
    if (Path(model) / MODEL_FILE).is_file():
        yield Path(model).absolute()
        return
    if Path(model).is_absolute() or model.startswith((".", "~")):  # any other folder may only share a model's name
        raise ConfigError(f"{model} is not the folder of a model: it has no file {MODEL_FILE}", fix=_HOW)
    uri = model_uri(model, tracking_uri)
    mlflow.set_tracking_uri(tracking_uri)
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    with TemporaryDirectory(prefix="model-", dir=beside) as folder:
        with reaching(tracking_uri):
            # Without a folder to copy to, MLflow would write a note of its own into the store's files.
            copy = download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=tracking_uri)
        yield Path(copy)


def load_served_model(folder: Path) -> ServedModel:
    """The model in a folder that MLflow saved it to.

    Raises:
        ConfigError: it is a model of another kind.
        CheckpointError: a file of it was edited or cut short.
    """
    try:
        loader = Model.load(str(folder)).flavors["python_function"]["loader_module"]
    except (MlflowException, KeyError):
        loader = ""
    if loader != LOADER:  # asked before it is loaded: another loader may run code that the model brings along
        raise ConfigError(f"the model in {folder} is not one that `foundation publish` made", fix=_HOW)
    model: ServedModel = load_model(str(folder), suppress_warnings=True).get_raw_model()
    return model


def model_uri(model: str, tracking_uri: str) -> str:
    """The `models:/` address of exactly one version, or of a logged model.

    Raises:
        ConfigError: there is none; the message says which there are.
    """
    short = model.removeprefix(MODEL_URI)
    if _LOGGED_MODEL.fullmatch(short) and model != short:
        return model
    if not _has_tables(tracking_uri):
        raise ConfigError(f"there is no model {model!r}: nothing was published to {tracking_uri} yet", fix=_FIRST)
    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    with reaching(tracking_uri):
        found = _version(client, short)
        if found is None:
            there = "; ".join(_published(client))
            how = _HOW if there else _FIRST
            raise ConfigError(f"there is no model {model!r} in {tracking_uri}", allowed=there, fix=how)
    return f"{MODEL_URI}{found.name}/{found.version}"


def _version(client: MlflowClient, model: str) -> ModelVersion | None:
    name, alias_mark, alias = model.partition("@")
    if alias_mark:
        return _by_alias(client, name, alias)
    name, version_mark, version = model.partition("/")
    versions = {str(entry.version): entry for entry in _versions(client, name)}
    if version_mark and version != "latest":
        return versions.get(version)
    latest = versions[max(versions, key=int)] if versions else None
    return latest if version_mark else _by_alias(client, name, DEFAULT_ALIAS) or latest


def _by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    try:
        return list(client.search_model_versions(f"name = '{name}'"))
    except MlflowException as error:
        if error.error_code == "INVALID_PARAMETER_VALUE":  # no name of a model looks like that
            return []
        raise


def _published(client: MlflowClient) -> list[str]:
    """Each registered model with its versions and aliases, as people write them."""
    found = []
    for entry in client.search_registered_models():
        versions = sorted((str(version.version) for version in _versions(client, entry.name)), key=int)
        aliases = [f"@{alias}" for alias in sorted(entry.aliases)]
        found.append(f"{entry.name} ({', '.join([*(f'/{version}' for version in versions), *aliases])})")
    return found


def _has_tables(tracking_uri: str) -> bool:
    """Whether there is a store: to ask SQLite for one that is not there would make it."""
    return not tracking_uri.startswith(SQLITE) or Path(tracking_uri.removeprefix(SQLITE)).is_file()


_HOW = "write NAME, NAME@alias, NAME/version, or the folder of a model that MLflow saved"
_FIRST = "publish one first: `foundation run RECIPE`; or name another data folder with FOUNDATION_HOME"
