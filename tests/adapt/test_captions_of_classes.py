"""A caption names a class if training gives it to samples of this class and of no other."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from foundation_core.adapt.tasks import TaskData, load_task, save_task
from foundation_core.adapt.values import CaptionNamingClass
from foundation_core.errors import ConfigError
from foundation_core.specs import FinetuneSpec, IngestSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest

SPEC = FinetuneSpec(task="caption_naming_class", few_labels=1, least_classes=2)
WORDINGS = {"dark": ("a dark picture", "night", "a picture"), "light": ("a light picture", "day", "a picture")}


@pytest.fixture
def corpus(tmp_path: Path, serial_context: Callable[[Path], Context]) -> Callable[[dict[str, tuple[str, ...]]], Path]:
    """Ingests pictures of two classes, captioned in turn from the wordings of each."""

    def made(wordings: dict[str, tuple[str, ...]]) -> Path:
        rows = []
        for number in range(90):
            kind = ("dark", "light")[number % 2]
            sink, level = io.BytesIO(), number + 120 * (kind == "light")
            Image.new("L", (4, 4), level).save(sink, "PNG")
            (tmp_path / f"{number}.png").write_bytes(sink.getvalue())
            says = wordings[kind][number // 2 % len(wordings[kind])]
            rows.append({"image": f"{number}.png", "kind": kind, "says": says})
        (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"kind": "image_table", "path": str(tmp_path / "table.jsonl"), "label_field": "kind"}
        spec = {
            "source": {**source, "caption_field": "says"},
            "image": {"size_pixels": 4, "channels": 1},
            "tokenizer": {"vocabulary": 262, "special": {"start": True}},
            "split": {"validation_fraction": 0.2, "test_fraction": 0.2},
        }
        ingest(IngestSpec.model_validate(spec), {}, serial_context(tmp_path / "made"))
        return tmp_path / "made"

    return made


def scored(data: TaskData, texts: list[str]) -> float:
    """The share of texts that name the class of their row."""
    task = CaptionNamingClass()
    return task.scores(task.compared(texts, data.test, data.facts))["class_named"]


def test_any_wording_of_its_own_class_is_right_and_one_of_another_or_of_both_is_not(
    corpus: Callable[[dict[str, tuple[str, ...]]], Path],
) -> None:
    data = CaptionNamingClass().data(corpus(WORDINGS), SPEC)
    kinds = [data.classes[label] for label in data.test.labels.tolist()]
    own = [WORDINGS[kind][0] for kind in kinds]
    assert scored(data, own) == 1.0
    assert scored(data, [WORDINGS[kind][1] + " " for kind in kinds]) == 1.0  # another wording than the reference has
    assert scored(data, [WORDINGS["light" if kind == "dark" else "dark"][0] for kind in kinds]) == 0.0
    assert scored(data, ["a picture"] * len(kinds)) == 0.0  # said of both
    assert scored(data, ["a dark day"] * len(kinds)) == 0.0  # said of none
    labels = data.test.labels.flip(0)  # the same answers beside the labels of other rows
    wrong = replace(data, test=replace(data.test, tensors={**data.test.tensors, "labels": labels}))
    assert scored(wrong, own) == pytest.approx((labels == data.test.labels).double().mean().item())


def test_a_task_that_was_written_scores_as_before(
    corpus: Callable[[dict[str, tuple[str, ...]]], Path], tmp_path: Path
) -> None:
    data = CaptionNamingClass().data(corpus(WORDINGS), SPEC)
    (tmp_path / "task").mkdir()
    save_task(tmp_path / "task", data)
    again = load_task(tmp_path / "task")
    assert again.facts.names == data.facts.names
    assert set(again.facts.names) == {"a dark picture", "night", "a light picture", "day"}


def test_a_class_that_no_caption_names_is_refused(corpus: Callable[[dict[str, tuple[str, ...]]], Path]) -> None:
    with pytest.raises(ConfigError, match="no caption names the class light"):
        CaptionNamingClass().data(corpus({"dark": ("night", "a picture"), "light": ("a picture",)}), SPEC)
