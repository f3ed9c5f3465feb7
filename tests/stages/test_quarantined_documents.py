"""A document that no step survives: the stage finds it, says so everywhere, and ends as if it had never been there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foundation_core.errors import ConfigError, Stopped
from foundation_core.events import read_events
from foundation_core.objectives.base import ALONE, Example, Ranks
from foundation_core.objectives.language import NextToken
from foundation_core.specs import ModelSpec, OptimizerSpec, PretrainSpec, TrunkSpec
from foundation_core.stages import pretrain as stage
from foundation_core.stages.contract import Context
from foundation_core.stages.pretrain import pretrain
from foundation_core.stages.training_data import TrainingData
from foundation_core.store import Result, StageResult
from tests.support.faults import StopAfter, Tasted, harmed
from tests.support.tasks import ingested

MODEL = ModelSpec(trunk=TrunkSpec(width=16, depth=1, heads=2), context_tokens=32)
SPEC = PretrainSpec(
    model=MODEL, steps=24, batch_rows=8, micro_batch_rows=4, optimizer=OptimizerSpec(lr=2e-2), precision="float32",
    validate_every_steps=4, validation_rows=20, checkpoint_every_steps=5, workers=1, engine="torch",
)  # fmt: skip
Contexts = Callable[..., Context]


class Allergic(NextToken):
    """Next token that is not finite in training where some tokens follow each other."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = tokens

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """Remember whether they are there."""
        plain = super().prepare(batch, seed)
        found = (batch["tokens"].unfold(1, len(self.tokens), 1) == self.tokens).all(dim=2).any()
        return Tasted(plain.inputs, plain.labels, plain.count, bool(found))

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The real loss, or NaN."""
        assert isinstance(example, Tasted)
        real = super().loss(model, example, ranks)
        return harmed(real, "loss") if example.poisoned and torch.is_grad_enabled() else real


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return ingested(tmp_path_factory.mktemp("ingested"))


@pytest.fixture(scope="module")
def culprit(corpus: Result) -> tuple[str, Tensor]:
    """A training document in the middle of the corpus, and tokens that no other one has in a row."""
    tables = list(TrainingData.open(corpus, MODEL.context_tokens).train.dataset.tables())
    documents = {
        name: tokens
        for table in tables
        for name, tokens in zip(table["document"].to_pylist(), table["tokens"].to_pylist(), strict=True)
    }
    name = sorted(documents)[len(documents) // 2]
    tokens = torch.tensor(documents.pop(name)[40:56])
    for other in documents.values():
        assert not (torch.tensor(other).unfold(0, len(tokens), 1) == tokens).all(dim=1).any()
    return name, tokens


@pytest.fixture
def allergic(monkeypatch: pytest.MonkeyPatch, culprit: tuple[str, Tensor]) -> None:
    """The objective; and no time is taken for a matrix product."""
    monkeypatch.setattr(TrainingData, "objective", lambda self, spec: Allergic(culprit[1]))
    monkeypatch.setattr(stage, "matmul_flops_per_second", lambda dtype, device: 1e9)


def _of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for _, event in read_events(folder) if event["kind"] == kind]


@pytest.mark.usefixtures("allergic")
@pytest.mark.parametrize("stop", [None, 3, 20])
def test_the_stage_ends_with_the_outputs_of_a_recipe_that_names_the_document(
    corpus: Result, culprit: tuple[str, Tensor], tmp_path: Path, serial_context: Contexts, stop: int | None
) -> None:
    named = SPEC.model_copy(update={"quarantined": (culprit[0],)})
    expected = pretrain(named, {"corpus": corpus}, serial_context(tmp_path / "named"))
    if stop is not None:
        with pytest.raises(Stopped):
            pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path / "found", stop=StopAfter(stop)))
    found = pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path / "found"))
    assert found.outputs == expected.outputs
    assert found.summary["quarantined"] == expected.summary["quarantined"] == [culprit[0]]
    assert found.summary["order_hash"] == expected.summary["order_hash"]
    _is_told(tmp_path / "found", culprit[0], found)
    assert not _of(tmp_path / "named", "failure")


def _is_told(folder: Path, name: str, result: StageResult) -> None:
    failures, recovered = _of(folder, "failure"), _of(folder, "recovered")
    assert [event["failure"] for event in failures] == ["persistent_nan"], "none of them was transient"
    assert failures[0]["documents"] == [name]
    assert [(event["failure"], event["step"]) for event in recovered] == [("persistent_nan", failures[0]["step"])]
    tags = [event["values"] for event in _of(folder, "tags") if "order_hash" in event["values"]]
    assert "quarantined" not in tags[0]
    assert tags[-1]["quarantined"] == f"1: {name}"
    assert tags[-1]["order_hash"] == result.summary["order_hash"] != tags[0]["order_hash"]


@pytest.mark.usefixtures("allergic")
def test_a_document_that_the_recipe_misspells_is_refused(
    corpus: Result, tmp_path: Path, serial_context: Contexts
) -> None:
    with pytest.raises(ConfigError, match="names 'nobody', which is no document of the training split"):
        pretrain(SPEC.model_copy(update={"quarantined": ("nobody",)}), {"corpus": corpus}, serial_context(tmp_path))


def test_what_is_tried_how_often_decides_no_result_and_a_policy_does() -> None:
    often = SPEC.recovery.model_copy(update={"recomputations": 3, "most_quarantined_documents": 1})
    assert SPEC.model_copy(update={"recovery": often}).meaning() == SPEC.meaning()
    other = SPEC.recovery.model_copy(update={"not_finite": "skip"})
    assert SPEC.model_copy(update={"recovery": other}).meaning() != SPEC.meaning()
