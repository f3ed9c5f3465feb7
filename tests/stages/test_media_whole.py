"""Pictures in folders, recordings in folders, and a table of pictures with captions: from files to a registered model.

What the files hold is told apart by anybody, so whoever has them in the right order does too.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas
import pytest
import soundfile
from PIL import Image

from flows.summary import summary_row
from foundation_core.adapt.tasks import load_task
from foundation_core.stages.contract import Context
from foundation_core.store import Result
from foundation_core.tracking.base import METRICS
from tests.support.whole import TRUNK, run_whole

Run = Callable[[Mapping[str, Any]], dict[str, Result]]

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (40, 40, 210)}
TONES = {"low": 300, "middle": 900, "high": 2400}
WORDINGS = ("a {} square", "all of it is {}")
EACH = 14
"""Items of a class."""
SPLIT = {"validation_fraction": 0.2, "test_fraction": 0.25}
LEARNED = {**TRUNK, "position": "learned"}
MAE = {"model": {"family": "masked_autoencoder", "patch": [4, 4], "trunk": LEARNED}, "objective": "masked_patches"}
SERIES = {"family": "masked_autoencoder", "patch": [1, 8], "trunk": LEARNED}
CLASSES = {"task": "class_of_sample", "steps": 60, "lr": [1e-2], "seeds": [0]}
CAPTIONED = {"special": {"start": True}, "vocabulary": 262}


@pytest.fixture
def run(tmp_path: Path, serial_context: Callable[..., Context]) -> Run:
    """Runs a recipe."""
    return lambda body: run_whole(tmp_path, body, serial_context)


def picture(colour: str, number: int, form: str = "PNG") -> bytes:
    """A picture of one colour, a little darker or lighter than others, of a size and proportions of its own."""
    draw = random.Random(f"{colour} {number}")
    size = (draw.randint(12, 30), draw.randint(12, 30))
    levels = tuple(min(255, max(0, level + draw.randint(-25, 25))) for level in COLOURS[colour])
    sink = io.BytesIO()
    Image.new("RGB", size, levels).save(sink, form)
    return sink.getvalue()


def recording(pitch: str, number: int, rate_hz: int = 16_000, form: str = "WAV") -> bytes:
    """A tone in two channels, louder or softer than others, of a length of its own."""
    draw = random.Random(f"{pitch} {number}")
    times = np.arange(int(rate_hz * draw.uniform(0.15, 0.4))) / rate_hz
    wave = draw.uniform(0.2, 0.8) * np.sin(2 * np.pi * TONES[pitch] * draw.uniform(0.95, 1.05) * times)
    sink = io.BytesIO()
    soundfile.write(sink, np.stack([wave, wave], axis=1), rate_hz, format=form)
    return sink.getvalue()


def filled(folder: Path, items: Mapping[str, bytes]) -> Path:
    """A folder with files."""
    for name, data in items.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV file that names pictures, with their colours and with captions in one of two wordings."""
    folder = filled(
        tmp_path / "raw", {f"{name}{number}.png": picture(name, number) for name in COLOURS for number in range(EACH)}
    )
    with open(folder / "table.csv", "w", newline="") as sink:
        lines = csv.writer(sink)
        lines.writerow(["file", "colour", "says"])
        for name in COLOURS:
            lines.writerows((f"{name}{number}.png", name, WORDINGS[number % 2].format(name)) for number in range(EACH))
    return folder / "table.csv"


def of_table(table: Path) -> dict[str, Any]:
    """What ingestion is told of it."""
    fields = {"image_field": "file", "label_field": "colour", "caption_field": "says"}
    return {
        "source": {"kind": "image_table", "path": str(table), **fields},
        "image": {"size_pixels": 8}, "split": SPLIT, "tokenizer": CAPTIONED,
    }  # fmt: skip


def asked(results: Mapping[str, Result], column: str, items: list[Any], task: str) -> list[Any]:
    """What the registered model says of items, as MLflow loads it."""
    model = mlflow.pyfunc.load_model(str(results["version"].folder / "model"))
    answers = model.predict(pandas.DataFrame({column: items}), {"task": task})
    return list(answers[{"classify": "label", "write": "answer", "embed": "embedding"}[task]])


def test_a_folder_of_pictures_becomes_a_model_that_names_their_folders(run: Run, tmp_path: Path) -> None:
    items = {f"{name}/{number}.png": picture(name, number) for name in COLOURS for number in range(EACH)}
    source = {"kind": "image_folder", "path": str(filled(tmp_path / "raw", items))}
    ingest = {"source": source, "image": {"size_pixels": 8}, "split": SPLIT}
    results = run({"ingest": ingest, "pretrain": MAE, "finetune": CLASSES})
    assert load_task(results["task"].folder).classes == sorted(COLOURS)
    assert results["scores"].summary["baseline"]["all"]["accuracy"] == 1
    assert results["task"].summary["arms"]["pretrained-all"]["accuracy"]["mean"] == 1
    new = [picture("red", 999, "JPEG"), picture("blue", 999, "BMP"), picture("green", 999)]
    assert asked(results, "image", new, "classify") == ["red", "blue", "green"]


def test_a_folder_of_recordings_becomes_a_model_that_names_their_folders(run: Run, tmp_path: Path) -> None:
    items = {f"{name}/{number}.wav": recording(name, number) for name in TONES for number in range(EACH)}
    source = {"kind": "audio_folder", "path": str(filled(tmp_path / "raw", items))}
    audio = {"rate_hz": 8000, "mel_bins": 16, "frames": 16}
    results = run({"ingest": {"source": source, "audio": audio, "split": SPLIT}, "pretrain": MAE, "finetune": CLASSES})
    assert load_task(results["task"].folder).classes == sorted(TONES)
    assert results["scores"].summary["baseline"]["all"]["accuracy"] == 1
    assert results["task"].summary["arms"]["pretrained-all"]["accuracy"]["mean"] > 0.8
    new = [recording("high", 999, 8000, "FLAC"), recording("low", 999, 44_100)]
    assert asked(results, "audio", new, "classify") == ["high", "low"]


def test_a_folder_of_recordings_becomes_a_series_whose_windows_are_named(run: Run, tmp_path: Path) -> None:
    items = {f"{name}/{number}.wav": recording(name, number, 8000) for name in TONES for number in range(EACH)}
    source = {"kind": "wave_folder", "path": str(filled(tmp_path / "raw", items))}
    series = {"columns": ["wave"], "window": 64, "stride": 128}
    body = {"ingest": {"source": source, "series": series, "split": SPLIT}, "pretrain": {**MAE, "model": SERIES}}
    named = run({**body, "finetune": {**CLASSES, "few_labels": 8}})
    assert load_task(named["task"].folder).classes == sorted(TONES)
    assert named["scores"].summary["baseline"]["all"]["accuracy"] > 0.8
    wave = [0.5 * np.sin(2 * np.pi * TONES["high"] * place / 8000) for place in range(64)]
    assert asked(named, "series", [[wave]], "classify")[0] in TONES


def test_a_table_of_pictures_with_captions_becomes_one_space_in_which_pairs_are_found(run: Run, table: Path) -> None:
    model = {"family": "dual_encoder", "patch": [4, 4], "trunk": LEARNED, "context_tokens": 24, "joint_width": 8}
    results = run(
        {
            "ingest": of_table(table),
            "pretrain": {
                "model": model, "objective": "contrastive", "steps": 40, "batch_rows": 12, "optimizer": {"lr": 5e-3},
            },
            "finetune": {**CLASSES, "steps": 3},
            "evaluate": {"templates": ["look at this {}"], "class_names": ["blue", "green", "red"]},
        }
    )  # fmt: skip
    scores = results["scores"].summary
    assert scores["zero_shot"]["training_captions"] == 1
    found = scores["retrieval"]
    assert len(COLOURS) < found["captions"] <= len(COLOURS) * len(WORDINGS)
    ways = [f"{way}_at_{among}" for way in ("caption_of_sample", "sample_of_caption") for among in (1, 5)]
    assert found["caption_of_sample_at_5"] >= found["caption_of_sample_at_1"]
    assert {f"test/{way}" for way in ways} <= set(METRICS)
    card = (results["version"].folder / "cards" / "model_card.md").read_text()
    told = summary_row(results["scores"])["scores"]
    for way in ways:
        assert f"| retrieval: {way.replace('_', ' ')} | {found[way]:.3f} |" in card
        assert f"{found[way]:.0%}" in told
    red, again, blue = asked(results, "image", [picture("red", 7), picture("red", 8), picture("blue", 7)], "embed")
    assert np.dot(red, again) > np.dot(red, blue)


def test_a_table_of_pictures_with_captions_becomes_a_model_that_describes_them(run: Run, table: Path) -> None:
    model = {"family": "captioner", "patch": [4, 4], "trunk": LEARNED, "context_tokens": 24}
    results = run(
        {
            "ingest": of_table(table),
            "pretrain": {
                "model": model, "objective": "captioning", "steps": 80, "batch_rows": 24, "micro_batch_rows": 24,
                "optimizer": {"lr": 1e-2},
            },
            "finetune": {"task": "caption_naming_class", "answer_tokens": 20, "steps": 40, "lr": [1e-2], "seeds": [0]},
        }
    )  # fmt: skip
    scores = results["scores"].summary
    usual = scores["baseline"]["all"]["class_named"]
    assert usual < 0.6 < scores["arms"]["pretrained-all"]["class_named"]["mean"]
    (answer,) = asked(results, "image", [picture("green", 999)], "write")
    assert answer in [wording.format("green") for wording in WORDINGS]
