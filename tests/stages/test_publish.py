"""Publish with a real SQLite registry: compared before it is registered, findable afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow.pyfunc
import pandas
import pytest
import torch
from mlflow.tracking import MlflowClient

from foundation_core.errors import CheckpointError, ConfigError, Stopped
from foundation_core.events import read_events
from foundation_core.files import read_json, sha256_file, write_json
from foundation_core.model.weights import load_weights, save_weights
from foundation_core.specs import PublishSpec
from foundation_core.stages import publish as stage
from foundation_core.stages.contract import Context
from foundation_core.stages.publish import publish
from foundation_core.store import Result
from foundation_core.tracking.lineage import result_tags
from foundation_core.tracking.mlflow import MlflowRuns
from foundation_core.tracking.package import best_pretrained_arm, compare
from tests.support.publishable import BASELINE, CLASSES, MACRO_F1, publishable

BuildContext = Callable[..., Context]
SPEC = PublishSpec(model_name="tiny")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, serial_context: BuildContext) -> dict[str, Result]:
    """What the earlier stages left."""
    return publishable(tmp_path_factory.mktemp("stages"), serial_context)


class Registry:
    """A store with a pipeline run and an open publish run in it."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.runs = MlflowRuns(self.uri, folder / "artifacts", "publish")
        self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def open(self, key: str) -> str:
        """The id of a new publish run."""
        self.pipeline = self.runs.open_pipeline("quickstart", f"pipeline of {key}", {}, {})
        tags = {"foundation.prefect_run": "prefect-1", "mlflow.source.git.commit": "0123abc"}
        return self.runs.open_stage(self.pipeline, "publish", key, {}, tags)

    def versions(self) -> list[str]:
        """Every registered version."""
        return [version.version for version in self.client.search_model_versions("name = 'tiny'")]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """One for all tests: making its tables takes longer than most of them."""
    return Registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def run_id(registry: Registry, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A publish run of the test's own, told to the stage as the launcher does."""
    run_id = registry.open(request.node.name)
    monkeypatch.setenv("FOUNDATION_TRACKING_URI", registry.uri)
    monkeypatch.setenv("FOUNDATION_RUN_ID", run_id)
    return run_id


def test_a_published_model_loads_by_its_alias_and_answers(
    registry: Registry, run_id: str, inputs: dict[str, Result], serial_context: BuildContext, tmp_path: Path
) -> None:
    done = publish(SPEC, inputs, serial_context(tmp_path))
    assert done.summary["model_uri"] == "models:/tiny@candidate"
    version = registry.client.get_model_version_by_alias("tiny", "candidate")
    assert version.version == done.summary["version"]
    path = registry.client.get_model_version_download_uri("tiny", version.version)
    model = mlflow.pyfunc.load_model(registry_path(registry, path), suppress_warnings=True)
    texts = pandas.DataFrame({"text": ["def first_1(value):\n", "x", ""]})
    completions = model.predict(texts, {"max_tokens": 6, "temperature": 0.0})["completion"]
    assert len(completions) == 3
    scores = model.predict(texts, {"task": "score"})["bits_per_byte"]
    assert 6 < scores[0] < 12  # random weights know nothing: about log2(300) bits for a byte or two
    labels = model.predict(texts, {"task": "classify"})
    assert set(labels["label"]) <= set(CLASSES)
    assert labels["probability"].between(1 / 3, 1).all()


def registry_path(registry: Registry, source: str) -> str:
    """The local folder of a version's files."""
    model_id = source.rpartition("/")[2]
    return str(registry.client.get_logged_model(model_id).artifact_location)
