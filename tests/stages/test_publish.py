"""Publish with a real SQLite registry: compared before it is registered, findable afterwards."""

from __future__ import annotations

import json
import shutil
import zipfile
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
from foundation_core.specs import PublishSpec
from foundation_core.stages import publish as stage
from foundation_core.stages.contract import Context
from foundation_core.stages.publish import publish
from foundation_core.store import Result
from foundation_core.tracking.lineage import result_tags
from foundation_core.tracking.mlflow import MlflowRuns
from foundation_core.tracking.package import (
    TOLERANCE,
    compare,
    description,
    save_mlflow_model,
)
from foundation_core.weights import load_weights, save_weights
from tests.support.publishable import CLASSES, publishable

BuildContext = Callable[..., Context]
SPEC = PublishSpec(model_name="tiny")
WEIGHTS = "data/package/weights.safetensors"


class Registry:
    """A store with room for the runs of every test."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.runs = MlflowRuns(self.uri, folder / "artifacts", "publish")
        self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self.pipeline = self.runs.open_pipeline("quickstart", "pipeline key", {}, {})

    def open(self, key: str) -> str:
        """The id of a publish run."""
        tags = {"foundation.prefect_run": "prefect-1", "mlflow.source.git.commit": "0123abc"}
        return self.runs.open_stage(self.pipeline, "publish", key, {}, tags)

    def versions(self) -> set[str]:
        """Every registered version."""
        return {str(found.version) for found in self.client.search_model_versions("name = 'tiny'")}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, serial_context: BuildContext) -> dict[str, Result]:
    """What the earlier stages left."""
    return publishable(tmp_path_factory.mktemp("stages"), serial_context)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """One for all tests: making its tables takes longer than most of them."""
    return Registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def run_id(registry: Registry, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A publish run of the test's own, told to the stage as the launcher tells it."""
    run_id = registry.open(request.node.name)
    monkeypatch.setenv("FOUNDATION_TRACKING_URI", registry.uri)
    monkeypatch.setenv("FOUNDATION_RUN_ID", run_id)
    return run_id


@pytest.fixture(scope="module")
def published(
    registry: Registry,
    inputs: dict[str, Result],
    serial_context: BuildContext,
    tmp_path_factory: pytest.TempPathFactory,
) -> Context:
    """The context of a publish stage that has run: its folder and event log."""
    context = serial_context(tmp_path_factory.mktemp("publish"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOUNDATION_TRACKING_URI", registry.uri)
        patch.setenv("FOUNDATION_RUN_ID", registry.open("published"))
        publish(SPEC, inputs, context)
    return context


def test_a_published_model_loads_by_its_alias_and_answers(published: Context) -> None:
    model = mlflow.pyfunc.load_model("models:/tiny@candidate", suppress_warnings=True)
    texts = pandas.DataFrame({"text": ["def first_1(value):\n", "x", ""]})
    completions = model.predict(texts, {"max_tokens": 6, "temperature": 0.0})["completion"]
    assert [type(text) for text in completions] == [str, str, str]
    score = model.predict(texts, {"task": "score"})["bits_per_byte"][0]
    assert 1 < score < 12  # random weights know nothing: log2(300) bits for each token of one byte or more
    answers = model.predict(texts, {"task": "classify"})
    assert set(answers["label"]) <= set(CLASSES)
    assert answers["probability"].between(1 / 3, 1).all()


def test_the_version_leads_back_to_everything_that_it_was_made_from(
    published: Context, registry: Registry, inputs: dict[str, Result]
) -> None:
    version = registry.client.get_model_version_by_alias("tiny", "candidate")
    run = registry.client.get_run(version.run_id)
    tags = version.tags
    assert tags.items() >= result_tags(inputs).items()
    assert tags["foundation.pretrain.mlflow_run"] == "run-of-pretrain"
    assert tags["foundation.pipeline_run"] == registry.pipeline == run.data.tags["mlflow.parentRunId"]
    assert tags["foundation.prefect_run"] == "prefect-1"
    assert tags["mlflow.source.git.commit"] == "0123abc"
    (output,) = run.outputs.model_outputs
    assert version.source == f"models:/{output.model_id}"
    logged = registry.client.get_logged_model(output.model_id)
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "tiny", "version": version.version}]


def test_the_version_is_described_by_its_card(published: Context, registry: Registry) -> None:
    card = (published.folder / "cards/model_card.md").read_text()
    assert registry.client.get_model_version_by_alias("tiny", "candidate").description == card


def test_a_card_longer_than_the_registry_keeps_ends_with_a_pointer() -> None:
    shortened = description("# Card\n" + "one line of many\n" * 1000)
    assert len(shortened) <= 5000
    assert shortened.endswith("`cards/model_card.md`.)\n")
    assert "one line of many\n\n(" in shortened


def test_the_package_holds_no_pickle_and_no_code(published: Context) -> None:
    folder = published.folder / "model"
    allowed = {".safetensors", ".json", ".md", ".png", ".txt", ".yaml", ".whl", ""}
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= allowed
    assert [path for path in files if path.suffix != ".whl" and zipfile.is_zipfile(path)] == []
    assert "code: null" in (folder / "MLmodel").read_text()


def test_the_requirements_are_exact_and_name_the_wheel_inside(published: Context) -> None:
    folder = published.folder / "model"
    *libraries, wheel = (folder / "requirements.txt").read_text().split("\n")
    assert all("==" in line and "+" not in line for line in libraries)
    assert (folder / wheel).is_file()


def test_the_reloaded_model_answers_as_the_trained_one(published: Context) -> None:
    assert compare(published.folder / "model") <= TOLERANCE


def test_cards_and_plots_reach_the_run_and_the_model(published: Context, inputs: dict[str, Result]) -> None:
    events = [event for _, event in read_events(published.folder) if event["kind"] == "artifact"]
    names = {f"{event['folder']}/{Path(event['path']).name}" for event in events}
    cards = {"cards/model_card.md", "cards/data_card.md"}
    plots = ("gradient_norm", "learning_rate", "loss", "throughput", "transfer")
    both = cards | {f"plots/{name}.png" for name in plots}
    assert names == both | {"pages/anatomy.html"}
    of_ingestion = inputs["corpus"].folder / "card/data_card.md"
    assert (published.folder / "cards/data_card.md").read_bytes() == of_ingestion.read_bytes(), "there is one data card"
    for name in both:
        assert sha256_file(published.folder / name) == sha256_file(published.folder / "model" / name)


def test_publishing_again_in_the_same_run_registers_nothing_twice(
    registry: Registry, run_id: str, inputs: dict[str, Result], serial_context: BuildContext, tmp_path: Path
) -> None:
    first = publish(SPEC, inputs, serial_context(tmp_path))
    before = registry.versions()
    again = publish(SPEC, inputs, serial_context(tmp_path))
    assert [again.summary[name] == first.summary[name] for name in ("version", "model_id")] == [True, True]
    assert registry.versions() == before
    assert dict(again.outputs) == dict(first.outputs)


@pytest.mark.parametrize("last_call", ["finalize_logged_model", "create_model_version"])
def test_a_publish_that_was_killed_while_registering_is_completed_and_not_doubled(
    last_call: str,
    registry: Registry,
    run_id: str,
    inputs: dict[str, Result],
    serial_context: BuildContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    before = registry.versions()
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, last_call, killed)
        with pytest.raises(KeyboardInterrupt):
            publish(SPEC, inputs, serial_context(tmp_path))
    assert registry.versions() == before
    done = publish(SPEC, inputs, serial_context(tmp_path))
    assert registry.versions() - before == {done.summary["version"]}
    experiment_id = registry.client.get_run(run_id).info.experiment_id
    (logged,) = registry.client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    assert (logged.model_id, logged.status) == (done.summary["model_id"], "READY")
    assert len(registry.client.get_run(run_id).outputs.model_outputs) == 1


def _edit_weights(folder: Path) -> None:
    weights = load_weights(folder / WEIGHTS)
    weights["stem.embed.weight"][300 // 2 :] += 0.5
    save_weights(folder / WEIGHTS, weights)


def _edit_weights_and_their_digest(folder: Path) -> None:
    _edit_weights(folder)
    body = read_json(folder / "data/package/package.json")
    body["files"]["weights.safetensors"] = sha256_file(folder / WEIGHTS)
    write_json(folder / "data/package/package.json", body)


@pytest.mark.parametrize(
    ("edit", "message"),
    [(_edit_weights, "not the file that was packaged"), (_edit_weights_and_their_digest, "the reloaded model answers")],
)
def test_an_edited_weight_file_is_caught_before_anything_is_registered(
    edit: Callable[[Path], None],
    message: str,
    registry: Registry,
    run_id: str,
    inputs: dict[str, Result],
    serial_context: BuildContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def save_and_edit(package: Path, folder: Path, run_id: str) -> None:
        save_mlflow_model(package, folder, run_id)
        edit(folder)

    monkeypatch.setattr(stage, "save_mlflow_model", save_and_edit)
    before = registry.versions()
    with pytest.raises(CheckpointError, match=message):
        publish(SPEC, inputs, serial_context(tmp_path))
    assert registry.versions() == before
    assert registry.client.get_run(run_id).outputs.model_outputs == []


@pytest.mark.parametrize(("role", "name"), [("corpus", "tokenizer.json"), ("trunk", "model.json")])
def test_an_output_that_was_edited_after_its_stage_is_not_packaged(
    role: str, name: str, run_id: str, inputs: dict[str, Result], serial_context: BuildContext, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(inputs[role].folder, copy)
    with open(copy / name, "a") as file:
        file.write("\n")
    with pytest.raises(CheckpointError, match=name):
        publish(SPEC, {**inputs, role: replace(inputs[role], folder=copy)}, serial_context(tmp_path / "publish"))


def test_a_stop_before_the_registration_leaves_none(
    registry: Registry, run_id: str, inputs: dict[str, Result], serial_context: BuildContext, tmp_path: Path
) -> None:
    class StopNow:
        def requested(self) -> bool:
            return True

    before = registry.versions()
    with pytest.raises(Stopped):
        publish(SPEC, inputs, serial_context(tmp_path, stop=StopNow()))
    assert registry.versions() == before


def test_publish_says_what_it_was_not_told(
    inputs: dict[str, Result], serial_context: BuildContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FOUNDATION_TRACKING_URI", raising=False)
    monkeypatch.delenv("FOUNDATION_RUN_ID", raising=False)
    with pytest.raises(ConfigError, match="FOUNDATION_TRACKING_URI and FOUNDATION_RUN_ID"):
        publish(SPEC, inputs, serial_context(tmp_path))


def test_the_classifier_in_the_package_is_that_arm(published: Context, inputs: dict[str, Result]) -> None:
    packaged = load_weights(published.folder / "model/data/package/classifier.safetensors")
    trained = load_weights(inputs["task"].folder / f"weights/{inputs['task'].summary['best_arm']}.safetensors")
    assert all(torch.equal(packaged[name], value) for name, value in trained.items())
