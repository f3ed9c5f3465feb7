"""From raw items to a registered model, whatever they are: every stage by what its parts say of themselves."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas
import pytest
from sklearn.datasets import load_digits

from flows.summary import summary_row
from foundation_core.adapt.tasks import load_task
from foundation_core.data.sources.digits import TEMPLATES
from foundation_core.errors import ConfigError
from foundation_core.files import read_json
from foundation_core.stages.contract import Context
from foundation_core.store import Result
from tests.support.whole import TRUNK, run_whole

Results = Mapping[str, Result]
Run = Callable[[Mapping[str, Any]], dict[str, Result]]

LEARNED = {**TRUNK, "position": "learned"}
IMAGE = {"size_pixels": 8, "channels": 1}
DIGITS = {
    "ingest": {"source": {"kind": "digits"}, "image": IMAGE},
    "pretrain": {
        "model": {"family": "masked_autoencoder", "patch": [2, 2], "trunk": LEARNED}, "objective": "masked_patches",
    },
    "finetune": {"task": "class_of_sample"},
}  # fmt: skip
CAPTIONS = {
    "ingest": {
        "source": {"kind": "digits_with_captions"}, "image": IMAGE,
        "tokenizer": {"vocabulary": 300, "special": {"start": True}},
    },
    "pretrain": {"model": {"family": "dual_encoder", "trunk": LEARNED}, "objective": "contrastive"},
    "finetune": {"task": "class_of_sample", "augment": {"shift": [1, 1]}},
    "evaluate": {
        "templates": ["look, a {}!"],
        "class_names": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    },
}  # fmt: skip
DESCRIBED = {
    "ingest": CAPTIONS["ingest"],
    "pretrain": {
        "model": {"family": "captioner", "trunk": LEARNED, "context_tokens": 24}, "objective": "captioning",
        "augment": {"shift": [1, 1]},
    },
    "finetune": {"task": "caption_naming_class", "answer_tokens": 6},
}  # fmt: skip
AUDIO = {"rate_hz": 8000, "mel_bins": 16, "frames": 32}
SPOKEN = {
    "pretrain": {"model": {"family": "captioner", "patch": [16, 4], "trunk": TRUNK}, "objective": "captioning"},
    "finetune": {"task": "caption_of_sample", "answer_tokens": 12},
}
SERIES = {
    "pretrain": {
        "model": {"family": "masked_autoencoder", "patch": [1, 4], "trunk": TRUNK}, "objective": "masked_patches",
    },
    "finetune": {"task": "next_values"},
}  # fmt: skip
SPECIAL = {"mask": True, "start": True, "sentinels": 8}
CODE = [
    ("encoder", "masked_token", "token_types"),
    ("encoder", "masked_token", "package_of_fragment"),
    ("encoder_decoder", "span_corruption", "docstring_of_function"),
    ("decoder", "prefix", "complete_function"),
    ("mixture", "balanced_next_token", "package_of_fragment"),
]
"""A family, its objective and a task."""
TWO_OF_THREE = {**TRUNK, "experts": 3, "experts_per_token": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, serial_context: Callable[..., Context]) -> Run:
    """Runs a recipe."""
    return lambda body: run_whole(tmp_path_factory.mktemp("whole"), body, serial_context)


@pytest.fixture(scope="module")
def digits(run: Run) -> Results:
    """A pipeline of images."""
    return run(DIGITS)


@pytest.fixture(scope="module")
def captions(run: Run) -> Results:
    """A pipeline of images and texts in one space."""
    return run(CAPTIONS)


@pytest.fixture(scope="module")
def source_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Functions with docstrings, in three packages."""
    folder = tmp_path_factory.mktemp("code")
    for number in range(60):
        path = folder / ("apples", "bridges", "clocks")[number % 3] / f"module_{number:02d}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            "\n\n".join(
                f'def {name}_{number}(value, other):\n    """Give the {name} of a value.\n\n    More.\n    """\n'
                f'    if value > {number}:  # not too small\n        return value + {number}\n    return "{name}"\n'
                for name in ("first", "second", "third")
            )
        )
    return folder


def loaded(results: Results) -> Any:
    """The registered model, as MLflow loads it."""
    return mlflow.pyfunc.load_model(str(results["version"].folder / "model"))


def png() -> bytes:
    """A digit as the bytes of a file."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray((load_digits().images[0] * 255 / 16).round().astype("uint8")).save(sink, "PNG")
    return sink.getvalue()


def test_the_test_of_digits_is_all_that_the_source_says(digits: Results) -> None:
    task = load_task(digits["task"].folder)
    assert len(task.test) == 360
    assert task.classes == [str(digit) for digit in range(10)]


def test_the_baseline_of_values_is_an_svm_that_knows_digits(digits: Results) -> None:
    baseline = digits["scores"].summary["baseline"]
    assert "SVM" in baseline["label"]
    assert baseline["all"]["accuracy"] > 0.9  # 0.936 with all 1,437 images; a tenth of them is validation here
    assert 0.5 < baseline["few"]["accuracy"] < baseline["all"]["accuracy"]


def test_a_masked_autoencoder_is_scored_by_its_own_loss_and_shows_what_it_draws(digits: Results) -> None:
    scores = digits["scores"].summary
    assert scores["test"]["unit"] == "squares"
    assert "bits_per_byte" not in scores["test"]
    assert not {"samples", "zero_shot", "retrieval"} & set(scores)
    assert (digits["version"].folder / "plots" / "pictures.png").stat().st_size > 5000


def test_a_published_model_of_images_reads_the_bytes_of_a_file_and_numbers(digits: Results) -> None:
    model = loaded(digits)
    rows = pandas.DataFrame({"image": [png()] * 2})
    answer = model.predict(rows, {"task": "classify"}).to_dict("records")
    assert answer[0] == answer[1]
    assert answer[0]["label"] in digits["task"].summary["classes"]
    assert len(model.predict(rows, {"task": "embed"})["embedding"][0]) == TRUNK["width"]
    raw = model.get_raw_model()
    levels = (load_digits().images[0] * 255 / 16).round().flatten().tolist()
    assert raw.class_probabilities([levels]) == pytest.approx(raw.class_probabilities(png()), abs=1e-6)


def test_its_card_says_how_to_ask_it(digits: Results) -> None:
    card = (digits["version"].folder / "cards" / "model_card.md").read_text()
    assert 'open("FILE", "rb").read()' in card
    assert "masked_patches" in card
    assert "RBF-SVM" in card
    assert "None" not in card


def test_a_dual_encoder_names_classes_by_captions_and_finds_pairs(captions: Results) -> None:
    scores = captions["scores"].summary
    assert scores["test"]["unit"] == "pairs"
    assert scores["zero_shot"]["unseen_captions"] == 10
    assert 0 <= scores["zero_shot"]["templates"] <= 1
    found = scores["retrieval"]
    assert 0 <= found["caption_of_sample_at_1"] <= found["caption_of_sample_at_5"] <= 1
    assert found["samples"] == 360
    card = (captions["version"].folder / "cards" / "model_card.md").read_text()
    assert "There is no anatomy page: an anatomy page cannot show a model that places texts and values" in card


def test_a_published_dual_encoder_maps_images_and_texts_to_one_space(captions: Results) -> None:
    model = loaded(captions)
    rows = pandas.DataFrame([{"image": png()}, {"text": "the digit seven"}])
    image, text = model.predict(rows, {"task": "embed"})["embedding"]
    assert len(image) == len(text)
    for vector in (image, text):
        assert math.fsum(value * value for value in vector) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ConfigError, match="classify reads image"):
        model.predict(rows, {"task": "classify"})


def test_a_captioner_of_images_writes_captions_that_are_scored_by_the_class_that_they_name(run: Run) -> None:
    results = run(DESCRIBED)
    task, scores = load_task(results["task"].folder), results["scores"].summary
    assert scores["deciding"] == "class_named"
    assert len(task.facts.names) == 10 * len(TEMPLATES)  # every caption of every digit is in training
    usual = min(Counter(task.train.references).items(), key=lambda entry: (-entry[1], entry[0]))[0]
    of_its_class = task.test.labels.eq(task.facts.names[usual]).double().mean().item()
    assert scores["baseline"]["all"]["class_named"] == pytest.approx(of_its_class)
    assert "the most frequent text" in (results["version"].folder / "cards" / "model_card.md").read_text()
    assert "class named" in summary_row(results["scores"])["made"]
    rows = pandas.DataFrame({"image": [png()]})
    assert isinstance(loaded(results).predict(rows, {"task": "write"})["answer"][0], str)


def test_a_captioner_transcribes(run: Run, shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    recordings = shared_data("spoken_digits")
    for takes in ("[0-9]", "1[0-2]"):
        for path in recordings.glob(f"[0-3]_*_{takes}.wav"):
            shutil.copy(path, tmp_path)
    ingest = {
        "source": {"kind": "spoken_digit_strings", "path": str(tmp_path)}, "audio": AUDIO,
        "tokenizer": {"vocabulary": 270, "special": {"start": True}},
    }  # fmt: skip
    results = run({**SPOKEN, "ingest": ingest})
    scores = results["scores"].summary
    assert scores["deciding"] == "word_error_rate"
    assert scores["baseline"]["all"]["word_error_rate"] > 0
    samples = read_json(results["scores"].folder / "samples.json")
    assert len(samples) == 3
    assert set(samples[0]["reference"].split()) <= {"zero", "one", "two", "three"}
    rows = pandas.DataFrame({"audio": [next(recordings.glob("*.wav")).read_bytes()]})
    assert isinstance(loaded(results).predict(rows, {"task": "write"})["answer"][0], str)
    assert '"grid_rows": 1, "patch": [16, 4]' in (results["version"].folder / "pages" / "anatomy.html").read_text()


def test_a_series_is_continued(run: Run, tmp_path: Path) -> None:
    lines = ["wave,slope", *(f"{math.sin(place / 3)},{place % 7}" for place in range(1600))]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    source = {"kind": "series_table", "path": str(tmp_path / "table.csv")}
    series = {"columns": ["wave", "slope"], "window": 16, "stride": 8}
    results = run({**SERIES, "ingest": {"source": source, "series": series, "exact_dedup": False}})
    scores = results["scores"].summary
    assert list(scores["gain"]) == ["all"]
    assert scores["baseline"]["all"]["squared_error"] > 0
    rows = pandas.DataFrame({"series": [[[0.1] * 16, [3.0] * 16]]})
    (answer,) = loaded(results).predict(rows, {"task": "predict"})["values"]
    assert [len(channel) for channel in json.loads(answer)] == [4, 4]


def test_windows_of_a_labelled_series_are_named(run: Run, tmp_path: Path) -> None:
    kinds = [("calm", "wild")[place // 48 % 2] for place in range(2400)]
    lines = [f"{math.sin(place * {'calm': 0.2, 'wild': 1.9}[kind])},{kind}" for place, kind in enumerate(kinds)]
    (tmp_path / "table.csv").write_text("\n".join(["wave,kind", *lines]))
    source = {"kind": "series_table", "path": str(tmp_path / "table.csv"), "label_field": "kind"}
    series = {"columns": ["wave"], "window": 16, "stride": 16}
    results = run(
        {
            "ingest": {"source": source, "series": series, "split": {"test_fraction": 0.3}},
            "pretrain": SERIES["pretrain"], "finetune": {"task": "class_of_sample"},
        }
    )  # fmt: skip
    assert load_task(results["task"].folder).classes == ["calm", "wild"]
    assert results["scores"].summary["baseline"]["all"]["accuracy"] > 0.9  # and half of them are of each kind
    assert list(results["scores"].summary["gain"]) == ["few", "all"]
    rows = pandas.DataFrame({"series": [[[math.sin(place * 1.9) for place in range(16)]]]})
    assert loaded(results).predict(rows, {"task": "classify"})["label"][0] in ("calm", "wild")


@pytest.mark.parametrize(("family", "objective", "task"), CODE)
def test_every_family_of_text_goes_through_every_stage(
    family: str, objective: str, task: str, run: Run, source_code: Path
) -> None:
    trunk = TWO_OF_THREE if family == "mixture" else TRUNK
    results = run(
        {
            "ingest": {
                "source": {"kind": "folder", "path": str(source_code)},
                "split": {"validation_fraction": 0.25, "test_fraction": 0.25},
                "tokenizer": {"vocabulary": 320, "special": SPECIAL},
            },
            "pretrain": {
                "model": {"family": family, "trunk": trunk, "context_tokens": 96, "tie_embeddings": False},
                "objective": objective,
            },
            "finetune": {"task": task, "fragment_tokens": 48, "answer_tokens": 16, "pool": "mean"},
        }
    )
    scores, version = results["scores"].summary, results["version"].summary
    assert ("bits_per_byte" in scores["test"]) == (objective in ("prefix", "balanced_next_token"))
    assert ("samples" in scores) == (family in ("decoder", "mixture"))
    assert version["largest_difference"] <= version["tolerance"]
    told = results["trunk"].summary["active_parameters"] < results["trunk"].summary["parameters"]
    assert ("active)" in summary_row(results["trunk"])["made"]) == told == (family == "mixture")
    rows = pandas.DataFrame({"text": ["def first_1(value):\n    return value\n"]})
    model = loaded(results)
    asked = {"token_types": "tag", "package_of_fragment": "classify"}.get(task, "write")
    assert len(model.predict(rows, {"task": asked})) == 1
    page = (results["version"].folder / "pages" / "anatomy.html").read_text()
    assert '"example": "def first_' in page, "it begins with a text of the test split"
    assert ('"reach": "prefix"' in page) == (objective == "prefix")
    assert "`pages/anatomy.html`" in (results["version"].folder / "cards" / "model_card.md").read_text()
