"""From raw items to a registered model, whatever they are: every stage by what its parts say of themselves."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import mlflow.pyfunc
import pandas
import pytest
from sklearn.datasets import load_digits

from foundation_core.files import read_json
from foundation_core.stages.contract import Context
from foundation_core.store import Result
from tests.support.whole import TRUNK, run_whole

DIGITS = {
    "ingest": {"source": {"kind": "digits"}, "image": {"size_pixels": 8, "channels": 1}},
    "pretrain": {
        "model": {"family": "masked_autoencoder", "patch": [2, 2], "trunk": {**TRUNK, "position": "learned"}},
        "objective": "masked_patches",
    },
    "finetune": {"task": "class_of_sample"},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, serial_context: Callable[..., Context]) -> dict[str, Result]:
    """A pipeline of images."""
    return run_whole(tmp_path_factory.mktemp("digits"), DIGITS, serial_context)


def test_the_test_of_digits_is_all_that_the_source_says(digits: dict[str, Result]) -> None:
    task = read_json(digits["task"].folder / "task.json")
    assert len(task["texts"]["test"]["documents"]) == 360
    assert digits["task"].summary["classes"] == [str(digit) for digit in range(10)]


def test_the_baseline_of_values_is_an_svm_that_knows_digits(digits: dict[str, Result]) -> None:
    baseline = digits["scores"].summary["baseline"]
    assert "SVM" in baseline["label"]
    assert baseline["all"]["accuracy"] > 0.9  # 0.936 with all 1,437 images; a tenth of them is validation here
    assert 0.5 < baseline["few"]["accuracy"] < baseline["all"]["accuracy"]


def test_a_masked_autoencoder_is_scored_by_its_own_loss_and_shows_what_it_draws(digits: dict[str, Result]) -> None:
    scores = digits["scores"].summary
    assert scores["test"]["unit"] == "squares"
    assert "bits_per_byte" not in scores["test"]
    assert "samples" not in scores
    assert (digits["version"].folder / "plots" / "pictures.png").stat().st_size > 5000


def test_a_published_model_of_images_reads_the_bytes_of_a_file(digits: dict[str, Result]) -> None:
    from PIL import Image

    model = mlflow.pyfunc.load_model(str(digits["version"].folder / "model"))
    sink = io.BytesIO()
    pixels = (load_digits().images[0] * 255 / 16).round().astype("uint8")
    Image.fromarray(pixels).save(sink, "PNG")
    rows = pandas.DataFrame({"image": [sink.getvalue()] * 2})
    answer = model.predict(rows, {"task": "classify"}).to_dict("records")
    assert answer[0] == answer[1]
    assert answer[0]["label"] in digits["task"].summary["classes"]
    assert len(model.predict(rows, {"task": "embed"})["embedding"][0]) == TRUNK["width"]


def test_its_card_says_how_to_ask_it(digits: dict[str, Any]) -> None:
    card = (digits["version"].folder / "cards" / "model_card.md").read_text()
    assert 'open("FILE", "rb").read()' in card
    assert "masked_patches" in card
    assert "RBF-SVM" in card
    assert "None" not in card
