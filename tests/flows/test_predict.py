"""`foundation predict`: every row keeps its place and gets the model's probabilities, wherever it was computed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from foundation_core.tracking.registry import load_served_model
from tests.support.publishable import CLASSES
from tests.support.published import PublishedPlace

ROWS = 23
NULLS = {3, 20}


def _predict(place: PublishedPlace, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", "predict", *arguments]
    return subprocess.run(command, env=place.environment, capture_output=True, text=True, timeout=170)


def _text(number: int) -> str | None:
    return None if number in NULLS else f"def name_{number}(value):\n    return value * {number}\n" * (1 + number % 4)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A JSONL table of some rows, two of them without a text."""
    path = tmp_path / "new.jsonl"
    rows = [{"number": number, "text": _text(number), "label": f"mine, {number}"} for number in range(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_row_keeps_its_place_and_its_columns_and_gets_what_the_model_says(
    published_place: PublishedPlace, table: Path
) -> None:
    done = _predict(published_place, "tiny", str(table), "--batch-rows", "5", "--json")
    assert done.returncode == 0, done.stderr
    out = table.with_name("new.predictions.jsonl")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    model = load_served_model(published_place.model_folder)
    for number, row in enumerate(rows):
        text = _text(number)
        assert {name: row[name] for name in ("number", "text", "label")} == {
            "number": number, "text": text, "label": f"mine, {number}",
        }  # fmt: skip
        found = {name: row[f"probability_{name}"] for name in CLASSES}
        assert found == (dict.fromkeys(CLASSES) if text is None else pytest.approx(model.class_probabilities(text)))
        assert row["prediction"] == (None if text is None else max(found, key=lambda name: found[name]))
    assert len({row["probability_json"] for row in rows}) > ROWS // 2  # control: the model tells the texts apart
    told = json.loads(done.stdout)
    assert (told["rows"], told["nulls"], told["out"], told["where"]) == (ROWS, len(NULLS), str(out), "this process")
    assert sum(told["classes"].values()) == ROWS - len(NULLS)


def test_the_ending_of_out_says_the_format(published_place: PublishedPlace, table: Path) -> None:
    model = str(published_place.model_folder)
    for name in ("out.csv", "out.parquet"):
        done = _predict(published_place, model, str(table), "--out", str(table.with_name(name)))
        assert done.returncode == 0, done.stderr
        assert f"{ROWS} rows in" in done.stdout
    with open(table.with_name("out.csv"), newline="") as lines:
        first, second = list(csv.DictReader(lines)), pq.read_table(table.with_name("out.parquet")).to_pylist()
    assert [row["prediction"] or None for row in first] == [row["prediction"] for row in second]
    assert [float(row["probability_json"] or -1) for row in first] == [
        -1 if row["probability_json"] is None else row["probability_json"] for row in second
    ]


@pytest.mark.services
@pytest.mark.slow
def test_ray_writes_the_same_bytes_in_any_batches(published_place: PublishedPlace, table: Path) -> None:
    here, there = table.with_name("here.jsonl"), table.with_name("there.jsonl")
    local = _predict(published_place, "tiny", str(table), "--out", str(here))
    remote = _predict(
        published_place,
        "tiny",
        str(table),
        "--out",
        str(there),
        "--ray-above-rows",
        "22",
        "--batch-rows",
        "4",
        "--json",
    )
    assert (local.returncode, remote.returncode) == (0, 0), local.stderr + remote.stderr
    assert json.loads(remote.stdout)["where"] == "Ray"
    assert there.read_bytes() == here.read_bytes()
    assert published_place.processes() == []
    wrong = _predict(published_place, "tiny", str(table), "--ray-above-rows", "0", "--text-field", "body")
    assert wrong.returncode == 2, wrong.stderr
    assert "has no column 'body'" in wrong.stderr
    assert list(published_place.home.glob("predict-*")) == list(published_place.home.glob("model-*")) == []


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        ('{"body": "x"}', [], "new.jsonl has no column 'text'\n  Allowed: body\n"),
        ('{"text": "x", "prediction": 1}', [], "would be overwritten: prediction"),
        ('{"text": "x"}\n{"text": 5}', ["--batch-rows", "1"], "row 2 has no text in it: int 5"),
        ('{"text": "x"}\n{"text": "a\\u0000"}', [], "row 2 has no text in it: not text: a NUL byte at offset 1"),
        ('{"text": "x"}', ["--out", "FILE"], "is the table that is read"),
        ('{"text": "x"}', ["--out", "FILE.txt"], "is no table by its name"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    published_place: PublishedPlace, tmp_path: Path, content: str, arguments: list[str], words: str
) -> None:
    table = tmp_path / "new.jsonl"
    table.write_text(content)
    options = [word.replace("FILE", str(table)) for word in arguments]
    done = _predict(published_place, str(published_place.model_folder), str(table), *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [table]
