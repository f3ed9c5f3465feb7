"""Captions that are cut are told, and samples without a class have no part in naming classes by captions."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from foundation_core.data.split import Split, split_of
from foundation_core.data.tokens.byte_level import encode_document
from foundation_core.evaluate.pairs import embed_texts
from foundation_core.events import read_events
from foundation_core.identity import action_key
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import Layout
from foundation_core.specs import EvaluateSpec, IngestSpec, PretrainSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.examinations import Subject, ZeroShot
from foundation_core.stages.ingest import ingest
from foundation_core.stages.pretrain import pretrain
from foundation_core.stages.pretrain_setup import open_corpus
from foundation_core.stages.training_data import TrainingData
from foundation_core.store import Result, commit_result
from tests.support.raw_items import picture

Build = Callable[..., Context]
ROWS, CONTEXT = 90, 8
CLASSES = ("red", "green", "blue")


def _spec(folder: Path) -> IngestSpec:
    fields = {"image_field": "file", "label_field": "colour", "caption_field": "says"}
    return IngestSpec.model_validate(
        {
            "source": {"kind": "image_table", "path": str(folder / "table.csv"), **fields},
            "image": {"size_pixels": 8}, "split": {"validation_fraction": 0.2, "test_fraction": 0.3},
            "tokenizer": {"vocabulary": 270, "special": {"start": True}},
        }
    )  # fmt: skip


def _split(spec: IngestSpec, number: int) -> Split:
    return split_of(f"image_table/table.csv/{number:09d}", spec.split)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, serial_context: Build) -> Result:
    """Pictures with captions; every fifth has no label, and of the test every seventh one that training has not."""
    folder = tmp_path_factory.mktemp("captions")
    spec, rows = _spec(folder), []
    for number in range(1, ROWS + 1):
        (folder / f"{number}.png").write_bytes(picture(number))
        label = CLASSES[number % 3] if number % 5 else ""
        if label and number % 7 == 0 and _split(spec, number) == "test":
            label = "violet"
        rows.append((f"{number}.png", label, f"a {CLASSES[number % 3]} one" + ", and so on" * (number % 2)))
    with open(folder / "table.csv", "w", newline="") as sink:
        csv.writer(sink).writerows([("file", "colour", "says"), *rows])
    done = ingest(spec, {}, serial_context(folder / "made"))
    return commit_result(folder / "made", action_key("ingest", spec, {}), done)


def _pretrain(context_tokens: int) -> PretrainSpec:
    trunk = {"width": 16, "depth": 1, "heads": 2, "position": "learned"}
    model = {"family": "dual_encoder", "patch": [4, 4], "trunk": trunk, "context_tokens": context_tokens}
    return PretrainSpec.model_validate({"model": model, "objective": "contrastive"})


def _subject(corpus: Result) -> Subject:
    """A dual encoder that has learned nothing, and the corpus."""
    data, spec = TrainingData.open(corpus, 64), _pretrain(64).model
    parts = {
        "data": data, "model": initialize(build(spec, data.shape), 0).eval(), "spec": EvaluateSpec(),
        "pretrained": SimpleNamespace(spec=spec),
    }  # fmt: skip
    return cast(Subject, SimpleNamespace(**parts))


def test_samples_without_a_class_of_training_are_left_out_and_counted(corpus: Result) -> None:
    subject = _subject(corpus)
    groups = cast(Any, subject.data.test).groups()
    others = [group for group in groups if group not in CLASSES]
    assert set(others) == {"", "violet"}
    assert "" in cast(Any, subject.data.train).groups(), "else the training's own rows are not tested"
    assert ZeroShot().fits(subject)
    found = ZeroShot().hold(subject)
    assert found.scores["classes"] == sorted(CLASSES)
    assert (found.scores["rows"], found.scores["left_out"]) == (len(groups) - len(others), len(others))
    right = found.scores["training_captions"] * found.scores["rows"]
    assert right == pytest.approx(round(right)), "a share of the labelled rows"
    assert f"{len(others)} test samples are of no class of training and were left out" in found.sentences[0]


@pytest.mark.parametrize("context_tokens", [CONTEXT, 64])
def test_a_pretraining_says_how_many_captions_it_cuts(
    context_tokens: int, corpus: Result, tmp_path: Path, serial_context: Build
) -> None:
    tokenizer = TrainingData.open(corpus, 64).tokenizer
    assert tokenizer is not None
    captions = [f"a {CLASSES[number % 3]} one" + ", and so on" * (number % 2) for number in range(1, ROWS + 1)]
    cut = sum(len(encode_document(tokenizer, caption)) > CONTEXT for caption in captions)
    assert 0 < cut < ROWS
    open_corpus(_pretrain(context_tokens), {"corpus": corpus}, serial_context(tmp_path))
    said = [event["text"] for _, event in read_events(tmp_path) if "captions are cut" in event.get("text", "")]
    told = f"{cut} of {ROWS} captions are cut to {CONTEXT} tokens, end token included"
    assert said == ([f"{told}: pretrain.model.context_tokens holds no more"] if context_tokens == CONTEXT else [])


@pytest.mark.parametrize("context_tokens", [CONTEXT, 64])
def test_the_summary_of_a_pretraining_says_how_many_captions_were_cut(
    context_tokens: int, corpus: Result, tmp_path: Path, serial_context: Build
) -> None:
    spec = _pretrain(context_tokens).model_copy(
        update={"steps": 2, "batch_rows": 4, "micro_batch_rows": 4, "validate_every_steps": 2}
    )
    summary = pretrain(spec, {"corpus": corpus}, serial_context(tmp_path)).summary
    cut = TrainingData.open(corpus, context_tokens).captions_cut()
    assert (cut is not None) == (context_tokens == CONTEXT)
    assert summary.get("captions_cut") == (cut and {"cut": cut.cut, "of": ROWS, "tokens": CONTEXT})


def test_a_text_is_cut_for_a_model_as_captions_are_in_training(corpus: Result) -> None:
    data, tokenizer = TrainingData.open(corpus, CONTEXT), TrainingData.open(corpus, CONTEXT).tokenizer
    assert tokenizer is not None
    rows = data.test.gather(torch.arange(len(data.test)))
    read: list[torch.Tensor] = []

    def reading(tokens: torch.Tensor, layout: Layout) -> torch.Tensor:
        read.append(tokens.masked_fill(layout.segment < 0, 0))
        return torch.zeros(len(tokens), 1)

    embed_texts(cast(Any, SimpleNamespace(embed_texts=reading)), tokenizer, cast(Any, data.test).captions(), CONTEXT)
    assert torch.equal(read[0], rows["tokens"][:, : read[0].shape[1]])
