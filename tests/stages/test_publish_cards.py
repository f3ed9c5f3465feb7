"""Cards contain the figures that they were given; plots are drawn from the event log."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from foundation_core.evaluate.plots import draw_plots, series
from foundation_core.evaluate.report import model_card
from foundation_core.events import EventLog
from foundation_core.pages.card import data_card
from foundation_core.stages.contract import Context
from foundation_core.store import Result
from tests.support.publishable import BASELINE, CLASSES, MACRO_F1, publishable

EXAMPLE = {
    "rows": [{"text": "import os"}],
    "answers": {"generate": [{"completion": ""}], "classify": [{"label": "json", "probability": 0.5}]},
}
ANATOMY = "There is no anatomy page: the reason."
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, serial_context: Callable[..., Context]) -> dict[str, Result]:
    """What the earlier stages left."""
    return publishable(tmp_path_factory.mktemp("stages"), serial_context)


def _rows(card: str) -> dict[str, list[str]]:
    """Every table row of a card, by its first cell."""
    lines = [line.strip("| ") for line in card.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in (re.split(r" *\| *", line) for line in lines)}


def test_the_model_card_holds_every_score_that_it_was_given(results: dict[str, Result]) -> None:
    card = model_card("tiny", "candidate", results, EXAMPLE, ANATOMY)
    rows = _rows(card)
    assert rows["bits per byte"] == ["2.345"]
    assert rows["perplexity"] == ["87.6"]
    assert rows["samples: parsed fraction"] == ["0.250"]
    assert "On 256 of the 512 rows" in card
    for arm, scores in MACRO_F1.items():
        mean = sum(scores) / 3
        assert rows[arm][0] == f"{mean:.3f} ({min(scores):.3f} to {max(scores):.3f})"
    for labels in ("few", "all"):
        assert rows[f"TF-IDF + logistic regression, {labels}"][0] == f"{BASELINE[labels]['macro_f1']:.3f}"
    assert "With few labels, pretraining changes macro-F1 by +0.200" in card
    assert re.search(r"With few labels.*beyond the spread", card)
    assert re.search(r"With all labels.*within the spread", card)
    assert all(name in card for name in CLASSES)


def test_the_model_card_says_that_a_budget_ended_the_training(results: dict[str, Result]) -> None:
    assert "**Length**: 40 steps, 1.25 epochs" in model_card("tiny", "candidate", results, EXAMPLE, ANATOMY)
    trunk = results["trunk"]
    summary = {**trunk.summary, "ended_by": "max_tokens", "planned_steps": 200}
    parts = {**trunk.parts, "spec": {**trunk.parts["spec"], "max_tokens": 12000}}
    ended = replace(trunk, summary=summary, parts=parts)
    card = model_card("tiny", "candidate", {**results, "trunk": ended}, EXAMPLE, ANATOMY)
    assert "**Length**: 40 of 200 steps (ended by its budget, `max_tokens` = 12,000), 1.25 epochs" in card


def test_the_model_card_says_how_many_captions_were_cut_where_any_was(results: dict[str, Result]) -> None:
    assert "Captions" not in model_card("tiny", "candidate", results, EXAMPLE, ANATOMY)
    trunk = results["trunk"]
    cut = replace(trunk, summary={**trunk.summary, "captions_cut": {"cut": 1200, "of": 4000, "tokens": 16}})
    card = model_card("tiny", "candidate", {**results, "trunk": cut}, EXAMPLE, ANATOMY)
    assert "\n- **Captions**: 1,200 of 4,000 are cut to 16 tokens, end token included\n- **Precision**" in card


def test_what_a_sample_says_cannot_break_the_card(results: dict[str, Result]) -> None:
    lines = model_card("tiny", "candidate", results, EXAMPLE, ANATOMY).splitlines()
    assert "    def first(value):" in lines
    assert "        ```" in lines
    assert [line for line in lines if line.startswith("```")] == ["```python", "```"]


def test_the_model_card_names_where_the_model_comes_from(results: dict[str, Result]) -> None:
    rows = _rows(model_card("tiny", "candidate", results, EXAMPLE, ANATOMY))
    for result in results.values():
        assert rows[result.stage] == [
            f"`{result.content[:12]}`", f"`{result.key[:12]}`", f"`run-of-{result.stage}`",
        ]  # fmt: skip


def test_the_model_card_says_where_the_model_is_seen_to_read_or_why_nowhere(results: dict[str, Result]) -> None:
    assert f"## See it read\n\n{ANATOMY}\n" in model_card("tiny", "candidate", results, EXAMPLE, ANATOMY)


def test_the_model_card_says_how_to_use_the_model(results: dict[str, Result]) -> None:
    card = model_card("tiny", "candidate", results, EXAMPLE, ANATOMY)
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    compile(code[1], "card", "exec")
    assert 'load_model("models:/tiny@candidate")' in code[1]


def test_both_cards_say_against_what_the_data_was_checked(results: dict[str, Result]) -> None:
    corpus = results["corpus"]
    assert "The training data was not checked" in model_card("tiny", "candidate", results, EXAMPLE, ANATOMY)
    assert "Evaluation sets: not checked" in data_card(corpus).markdown
    known = {"name": "farm", "sha256": "5" * 64, "gram_words": 13, "grams": 2000, "texts": 9, "texts_too_short": 1}
    checked = replace(corpus, summary={**corpus.summary, "decontamination": [{**known, "dropped": 3}]})
    said = "checked against farm (sha256 555555555555, 2,000 runs of 13 words, 1 of its 9 texts too short; documents"
    of_data = data_card(checked)
    for card in (model_card("tiny", "candidate", {**results, "corpus": checked}, EXAMPLE, ANATOMY), *of_data):
        assert f"{said} dropped: 3)" in card
        assert "not checked" not in card


def test_every_plot_is_a_picture(results: dict[str, Result], tmp_path: Path) -> None:
    paths = draw_plots(results, tmp_path)
    assert [path.name for path in paths] == [
        "loss.png", "learning_rate.png", "throughput.png", "gradient_norm.png", "transfer.png",
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(PNG) for path in paths)


def test_of_a_step_that_was_done_twice_the_last_figure_is_drawn(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    for step, value in ((1, 3.0), (2, 2.5), (3, 9.0), (2, 2.4), (3, 2.0)):
        log.write("metrics", values={"train/loss_nats": value}, step=step)
    log.write("metrics", values={"speed/tokens_per_second": 1.0}, step=None)
    assert series(tmp_path) == {"train/loss_nats": {1: 3.0, 2: 2.4, 3: 2.0}}
