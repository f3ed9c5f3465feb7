"""A published model is found by each of its names, and what is not there is answered with what is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow.pyfunc import load_model
from mlflow.tracking import MlflowClient

from foundation_core.errors import CheckpointError, ConfigError
from foundation_core.files import sha256_file
from foundation_core.tracking.registry import load_served_model, model_files, model_uri
from tests.support.published import PublishedPlace


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("tiny", "1"), ("tiny@candidate", "1"), ("tiny/1", "1"), ("tiny/2", "2"), ("tiny/latest", "2"),
        ("models:/tiny", "1"), ("models:/tiny@candidate", "1"), ("models:/tiny/2", "2"),
    ],
)  # fmt: skip
def test_each_name_leads_to_one_version(published_place: PublishedPlace, model: str, version: str) -> None:
    assert model_uri(model, published_place.tracking_uri) == f"models:/tiny/{version}"


def test_a_bare_name_without_the_alias_is_the_latest_version(published_place: PublishedPlace, tmp_path: Path) -> None:
    shutil.copy(published_place.home / "mlflow.db", tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri, registry_uri=uri).delete_registered_model_alias("tiny", "candidate")
    assert model_uri("tiny", uri) == "models:/tiny/2"


@pytest.mark.parametrize(
    "model", ["huge", "tiny@champion", "tiny/3", "tiny/x", "models:/huge/1", "it's", "", "a/b/c", "@", "models:/"]
)
def test_what_is_not_there_is_answered_with_what_is(published_place: PublishedPlace, model: str) -> None:
    with pytest.raises(ConfigError) as refused:
        model_uri(model, published_place.tracking_uri)
    assert refused.value.allowed == "tiny (/1, /2, @candidate)"


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing was published"):
        model_uri("tiny", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert list(tmp_path.iterdir()) == []


def test_every_way_loads_the_same_model_and_leaves_the_store_as_it_was(published_place: PublishedPlace) -> None:
    files = [path for path in (published_place.home / "mlflow-artifacts").rglob("*") if path.is_file()]
    before = {path: sha256_file(path) for path in files}
    version = MlflowClient(published_place.tracking_uri).get_model_version("tiny", "1")
    answers = []
    for model in ("tiny", version.source, str(published_place.model_folder)):
        with model_files(model, published_place.tracking_uri) as folder:
            answers.append(load_served_model(folder).answer(["def first"], {"temperature": 0.0}))
    assert answers[0] == answers[1] == answers[2]
    after = {path for path in (published_place.home / "mlflow-artifacts").rglob("*") if path.is_file()}
    assert after == set(files)
    assert {path: sha256_file(path) for path in files} == before


def test_a_folder_of_the_same_name_hides_no_model(
    published_place: PublishedPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    with model_files("tiny", published_place.tracking_uri) as folder:
        assert load_served_model(folder).tasks


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    for model in (str(tmp_path), str(tmp_path / "nothing"), "./nothing"):
        with pytest.raises(ConfigError, match="not the folder of a model"), model_files(model, "sqlite:///nowhere.db"):
            pass


def test_an_edited_model_is_not_loaded(published_place: PublishedPlace, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(published_place.model_folder, folder)
    assert load_served_model(folder).tasks  # control
    (weights,) = folder.glob("data/*/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="not the file that was packaged"):
        load_served_model(folder)


def test_a_model_of_another_kind_is_refused(published_place: PublishedPlace, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(published_place.model_folder, folder)
    text = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(text.replace("foundation_core.tracking.pyfunc", "foundation_core.errors"))
    with pytest.raises(ConfigError, match="not one that `foundation publish` made"):
        load_served_model(folder)
    assert load_model(str(published_place.model_folder), suppress_warnings=True)  # control: MLflow itself loads it
