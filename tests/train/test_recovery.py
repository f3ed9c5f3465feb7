"""Whatever makes a step fail, the training ends like one that it never happened to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foundation_core.errors import DivergedError, Stopped
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.base import ALONE, Example, Ranks
from foundation_core.objectives.language import NextToken
from foundation_core.objectives.pairs import Contrastive
from foundation_core.specs import OptimizerSpec
from foundation_core.specs.recovery import RecoverySpec
from tests.support.faults import (
    Erring,
    Indigestible,
    Tasted,
    assert_same,
    events_of,
    harmed,
    name_of,
    poisoned_corpus,
    stop_at,
)
from tests.support.training import (
    MODEL,
    SHAPE,
    InfiniteGradient,
    Pairs,
    Trained,
    Training,
    dual_encoder,
    weights_sha256,
)

STEPS = 12


@pytest.mark.parametrize("harm", ["loss", "gradient"])
@pytest.mark.parametrize("call", [1, 2, 15], ids=lambda call: f"call {call}")
def test_a_step_that_fails_once_is_done_again_and_nothing_shows(
    corpus: Path, tmp_path: Path, undisturbed: Trained, harm: Any, call: int
) -> None:
    trained = Training(tmp_path, corpus, objective=Erring(frozenset({call}), harm), steps=STEPS).run()
    assert_same(trained, undisturbed)
    (failure,), (recovered,) = events_of(tmp_path, "failure"), events_of(tmp_path, "recovered")
    step = (call + 1) // 2  # of two micro-batches each
    assert (failure["failure"], failure["step"]) == ("transient_nan", step)
    assert (recovered["failure"], recovered["step"]) == ("transient_nan", step)
    assert trained.progress.faults.recomputed == 1


def test_dropout_drops_the_same_when_a_step_is_done_again(corpus: Path, tmp_path: Path) -> None:
    dropping = MODEL.model_copy(update={"trunk": MODEL.trunk.model_copy(update={"dropout": 0.2})})
    base = Training(tmp_path / "fine", corpus, model=lambda: initialize(build(dropping, SHAPE), 0), steps=4)
    erring = replace(base, folder=tmp_path / "erring", objective=Erring(frozenset({4})))
    assert_same(erring.run(), base.run())
    stays = Training(tmp_path / "stays", corpus, steps=4).run()
    assert weights_sha256(stays.weights) != weights_sha256(base.run().weights), "nothing was dropped at all"


def test_a_machine_that_errs_too_often_is_named(corpus: Path, tmp_path: Path) -> None:
    erring = Erring(frozenset({1, 6, 11}))
    spec = RecoverySpec(most_recomputed_steps=2)
    with pytest.raises(DivergedError, match="3 steps were finite only when they were computed again"):
        Training(tmp_path, corpus, objective=erring, recovery=spec, steps=STEPS).run()


def test_without_recomputation_a_fault_counts_at_once(corpus: Path, tmp_path: Path) -> None:
    erring, spec = Erring(frozenset({5})), RecoverySpec(recomputations=0, not_finite="stop")
    with pytest.raises(DivergedError, match="training loss is nan"):
        Training(tmp_path, corpus, objective=erring, recovery=spec, steps=STEPS).run()


# ------------------------------------------------------------------------------------------ a document is the cause


@pytest.mark.parametrize(
    ("packing", "harm"), [("cut", "loss"), ("cut", "gradient"), ("best_fit", "loss"), ("one_document", "gradient")]
)
def test_a_document_that_fails_is_found_and_the_training_ends_like_one_that_never_had_it(
    corpus: Path, tmp_path: Path, packing: Any, harm: Any
) -> None:
    training = Training(tmp_path / "found", corpus, objective=Indigestible(harm), packing=packing, steps=20)
    trained, ledger = training.run(), training.ledger()
    assert ledger is not None
    assert ledger.documents == (name_of(17),)
    named = replace(training, folder=tmp_path / "named", quarantined=ledger.documents)
    assert_same(trained, named.run())
    assert not events_of(tmp_path / "named", "failure")
    innocent = replace(training, folder=tmp_path / "innocent", objective=NextToken()).run()
    assert weights_sha256(innocent.weights) != weights_sha256(trained.weights), "the document was never read"
    persistent = [event for event in events_of(tmp_path / "found", "failure") if event["failure"] == "persistent_nan"]
    assert [event["documents"] for event in persistent] == [[name_of(17)]]


@pytest.mark.parametrize("numbers", [(0, 59), (30, 31, 32)], ids=str)
def test_several_documents_are_found_one_after_the_other(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    corpus = poisoned_corpus(tmp_path / "train", numbers)
    training = Training(tmp_path / "found", corpus, objective=Indigestible(), steps=20)
    trained, ledger = training.run(), training.ledger()
    assert ledger is not None
    assert ledger.documents == tuple(map(name_of, numbers))
    assert_same(trained, replace(training, folder=tmp_path / "named", quarantined=ledger.documents).run())


@pytest.mark.parametrize("saves", [1, 100])
def test_what_fails_in_the_second_epoch_was_never_read_in_the_first(corpus: Path, tmp_path: Path, saves: int) -> None:
    """Whether checkpoints from before its first step are still there or not."""
    rows = len(Training(tmp_path, corpus).windows())
    training = Training(
        tmp_path / "found", corpus, objective=Indigestible(since=rows), steps=2 * rows // 4, keep=100,
        checkpoint_every_steps=saves,
    )  # fmt: skip
    trained = training.run()
    named = replace(training, folder=tmp_path / "named", quarantined=(name_of(17),))
    assert_same(trained, named.run())
    (failure,) = [event for event in events_of(tmp_path / "found", "failure") if "rewind_to" in event]
    assert failure["step"] > rows // 4 > failure["rewind_to"]


@pytest.mark.parametrize("question", [1, 4, 7, 11])
def test_an_interruption_before_or_behind_the_rewind_changes_nothing(
    corpus: Path, tmp_path: Path, question: int
) -> None:
    whole = Training(tmp_path / "whole", corpus, objective=Indigestible(), steps=STEPS, checkpoint_every_steps=3)
    again = replace(whole, folder=tmp_path / "again")
    with pytest.raises(Stopped):
        again.run(stop_at(question))
    assert_same(again.run(), whole.run())


def test_a_rewind_that_died_behind_its_commit_goes_on_without_the_document(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(tmp_path / "found", corpus, objective=Indigestible(), steps=STEPS, checkpoint_every_steps=2)
    monkeypatch.setattr("foundation_core.train.recovery.RewindError", _Killed)
    with pytest.raises(_Killed):
        training.run()
    monkeypatch.undo()
    assert_same(training.run(), replace(training, folder=tmp_path / "whole").run())


class _Killed(KeyboardInterrupt):
    """A process that ends at the moment at which it would begin anew."""


class NamedPairs(Pairs):
    """Pairs of values and captions that have names."""

    def documents_of(self, indices: Tensor) -> list[list[str]]:
        """A pair is a document."""
        return [[f"pair/{int(index)}"] for index in indices]

    def rows_of(self, documents: Collection[str]) -> Tensor:
        """By the number in the name."""
        return torch.tensor(sorted(int(name.removeprefix("pair/")) for name in documents), dtype=torch.int64)


class AllergicPairs(Contrastive):
    """Telling pairs apart, where one of them makes the gradient of the joint batch infinite."""

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """Remember whether it is there."""
        plain, bad = super().prepare(batch, seed), NamedPairs().gather(torch.tensor([13]))["values"]
        found = bool((batch["values"] == bad).flatten(1).all(dim=1).any())
        return Tasted(plain.inputs, plain.labels, plain.count, found)

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The real loss; its gradient is not."""
        assert isinstance(example, Tasted)
        real = super().loss(model, example, ranks)
        return harmed(real, "gradient") if example.poisoned else real


def test_a_row_that_is_a_document_is_found_in_a_joint_batch_too(corpus: Path, tmp_path: Path) -> None:
    training = Training(
        tmp_path / "found", corpus, objective=AllergicPairs(), model=dual_encoder, rows=NamedPairs(),
        optimizer=OptimizerSpec(lr=3e-3), batch_rows=7, micro_batch_rows=7, steps=STEPS,
    )  # fmt: skip
    trained, ledger = training.run(), training.ledger()
    assert ledger is not None
    assert ledger.documents == ("pair/13",)
    assert_same(trained, replace(training, folder=tmp_path / "named", quarantined=("pair/13",)).run())


def test_more_documents_than_may_be_hidden_end_the_training(tmp_path: Path) -> None:
    corpus = poisoned_corpus(tmp_path / "train", (5, 25, 45))
    spec = RecoverySpec(most_quarantined_documents=2)
    with pytest.raises(DivergedError, match="2 documents are hidden already"):
        Training(tmp_path / "found", corpus, objective=Indigestible(), recovery=spec, steps=20).run()


def test_no_document_is_blamed_for_a_model_that_is_broken(corpus: Path, tmp_path: Path) -> None:
    training = Training(tmp_path, corpus, objective=InfiniteGradient(), steps=STEPS)
    with pytest.raises(DivergedError, match="gradient norm is nan"):
        training.run()
    ledger = training.ledger()
    assert ledger is not None
    assert not ledger.entries


def test_most_of_a_batch_is_not_to_blame_either(tmp_path: Path) -> None:
    corpus = poisoned_corpus(tmp_path / "train", range(60))
    training = Training(tmp_path / "found", corpus, objective=Indigestible(), steps=STEPS)
    with pytest.raises(DivergedError, match="training loss is nan"):
        training.run()
    ledger = training.ledger()
    assert ledger is not None
    assert not ledger.entries


@pytest.mark.parametrize("question", [None, 4, 9])
def test_a_step_may_be_left_out_instead_and_so_it_is_after_an_interruption(
    corpus: Path, tmp_path: Path, question: int | None
) -> None:
    spec = RecoverySpec(not_finite="skip")
    training = Training(tmp_path / "one", corpus, objective=Indigestible(), recovery=spec, steps=STEPS)
    trained = training.run()
    (skipped,) = trained.progress.faults.skipped
    assert sorted(trained.losses) == [step for step in range(1, STEPS + 1) if step != skipped + 1]
    again = replace(training, folder=tmp_path / "again")
    if question is not None:
        with pytest.raises(Stopped):
            again.run(stop_at(question))
    other = again.run()
    assert_same(other, trained)
    assert other.progress.faults.skipped == [skipped]
