"""What the table at the end says of a stage: the figures of its result, those that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.summary import summary_row
from foundation_core.store import Result

PRETRAINED = {
    "parameters": 5_560_000, "steps": 720, "ended_by": "", "precision": {"name": "bf16"}, "best_step": 540,
    "best_validation": {"loss_nats": 4.5},
}  # fmt: skip
SCORED = {
    "deciding": "macro_f1", "scored": {"macro_f1": {"label": "macro-F1", "higher_is_better": True}},
    "best_arm": "pretrained-all", "arms": {"pretrained-all": {"macro_f1": {"mean": 0.9}}}, "gain": {"all": {}},
    "baseline": {"label": "RBF-SVM", "all": {"macro_f1": 0.95}}, "test": {"unit": "pairs", "loss_pairs": 2.5},
}  # fmt: skip
RECALL = {
    "caption_of_sample_at_1": 0.21, "caption_of_sample_at_5": 0.63, "sample_of_caption_at_1": 0.84,
    "sample_of_caption_at_5": 0.97, "samples": 360, "captions": 80,
}  # fmt: skip


def row(stage: str, summary: dict[str, Any]) -> dict[str, str]:
    """The row of a stage."""
    return summary_row(Result(stage, "key", "content", Path(), summary, 1.0))


def test_a_model_of_which_a_token_passes_a_part_has_two_sizes() -> None:
    assert row("pretrain", {**PRETRAINED, "active_parameters": 2_900_000})["made"].startswith(
        "5.56 M (2.90 M active) parameters, 720 steps"
    )
    for summary in (PRETRAINED, {**PRETRAINED, "active_parameters": 5_560_000}):  # a result of before, and a dense one
        assert row("pretrain", summary)["made"] == "5.56 M parameters, 720 steps, bf16"


def test_recall_is_told_both_ways_of_a_model_that_has_some() -> None:
    told = row("evaluate", {**SCORED, "retrieval": RECALL})["scores"]
    assert "recall at 1 and 5: captions found 21% and 63%, samples 84% and 97%" in told
    assert "recall" not in row("evaluate", SCORED)["scores"]
