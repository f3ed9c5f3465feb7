"""A corpus that holds the evaluation set says so in every score and card that comes of it, from the first file on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.evaluate.report import model_card
from foundation_core.files import read_json
from foundation_core.identity import action_key
from foundation_core.pages.card import MARKDOWN_FILE, PAGE_FILE
from foundation_core.specs import EvaluateSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.evaluate import evaluate
from foundation_core.stages.finetune import finetune
from foundation_core.store import Result, commit_result
from tests.stages.test_publish_cards import ANATOMY, EXAMPLE
from tests.support.publishable import publishable
from tests.support.tasks import TASK, ingested, pretrained, write_packages

Build = Callable[..., Context]
SPEC = EvaluateSpec(test_rows=16, samples=1, sample_tokens=8, threads=1)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A corpus of which three files are in the evaluation set, in other words' clothes: spaces and capitals."""
    root = tmp_path_factory.mktemp("contaminated")
    paths = write_packages(root)
    rows = [{"question": " ".join(path.read_text().upper().split())} for path in paths[::20]]
    (root / "farm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = [{"name": "farm", "path": str(root / "farm.jsonl"), "text_field": "question"}]
    return root, ingested(root, decontamination={"sets": sets, "gram_words": 20})


def test_what_the_set_holds_is_dropped_and_counted_by_its_name(checked: tuple[Path, Result]) -> None:
    root, corpus = checked
    (one,) = corpus.summary["decontamination"]
    assert (one["name"], one["texts"]) == ("farm", 3)
    dropped = [row for some in ShardDataset(corpus.folder / "dropped").tables() for row in some.to_pylist()]
    by_set = {row["document"] for row in dropped if row["rule"] == "contamination_farm <= 0"}
    held = {f"folder/{path.relative_to(root / 'source').as_posix()}" for path in write_packages(root)[::20]}
    assert len(held) == 3 <= one["dropped"] == len(by_set)
    assert held <= by_set


def test_the_score_and_every_card_carry_it(checked: tuple[Path, Result], tmp_path: Path, serial_context: Build) -> None:
    root, corpus = checked
    (one,) = corpus.summary["decontamination"]
    said = f"checked against farm (sha256 {one['sha256'][:12]}, {one['grams']:,} runs of 20 words"
    inputs: dict[str, Any] = {"corpus": corpus, "trunk": pretrained(root)}
    folder = tmp_path / "finetune"
    task = finetune(TASK, inputs, serial_context(folder))
    inputs["task"] = commit_result(folder, action_key("finetune", TASK, {}), task)
    result = evaluate(SPEC, inputs, serial_context(tmp_path / "evaluate"))
    scores = read_json(tmp_path / "evaluate" / "scores.json")["contamination"]
    assert scores == result.summary["contamination"]
    results = {**publishable(tmp_path / "published", serial_context), "corpus": corpus}
    cards = [(corpus.folder / "card" / name).read_text() for name in (MARKDOWN_FILE, PAGE_FILE)]
    for text in (scores, model_card("tiny", "candidate", results, EXAMPLE, ANATOMY), *cards):
        assert said in text
        assert f"documents dropped: {one['dropped']}" in text
        assert "not checked" not in text
