"""Whatever makes a step fail, the training ends like one that it never happened to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from foundation_core.data.quarantine import first_sample
from foundation_core.errors import DeviceMemoryError, DivergedError, SetupError, Stopped
from foundation_core.events import read_events
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.base import ALONE, Example, Ranks
from foundation_core.objectives.language import NextToken
from foundation_core.spec_recovery import RecoverySpec
from foundation_core.train.blame import leap_bound
from foundation_core.train.engine import TorchEngine
from tests.support.faults import Cramped, Erring, Indigestible, name_of, poisoned_corpus
from tests.support.training import MODEL, SHAPE, InfiniteGradient, Trained, Training, weights_sha256

STEPS = 12
POISONED = (17,)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of which one document is poisoned."""
    return poisoned_corpus(tmp_path_factory.mktemp("poisoned") / "train", POISONED)


def _events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for _, event in read_events(folder / "rank-0") if event["kind"] == kind]


def _assert_equal(one: Trained, other: Trained) -> None:
    assert one.losses == other.losses
    assert one.grad_norms == other.grad_norms
    assert one.validations == other.validations
    assert weights_sha256(one.weights) == weights_sha256(other.weights)
    assert one.progress.labels == other.progress.labels


def _stop_at(question: int) -> Callable[[], bool]:
    asked = count(1)
    return lambda: next(asked) == question


# ------------------------------------------------------------------------------------------------ the machine errs


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Training(tmp_path_factory.mktemp("undisturbed"), corpus, steps=STEPS).run()


@pytest.mark.parametrize("harm", ["loss", "gradient"])
@pytest.mark.parametrize("call", [1, 2, 15], ids=lambda call: f"call {call}")
def test_a_step_that_fails_once_is_done_again_and_nothing_shows(
    corpus: Path, tmp_path: Path, undisturbed: Trained, harm: Any, call: int
) -> None:
    trained = Training(tmp_path, corpus, objective=Erring(frozenset({call}), harm), steps=STEPS).run()
    _assert_equal(trained, undisturbed)
    (failure,), (recovered,) = _events(tmp_path, "failure"), _events(tmp_path, "recovered")
    step = (call + 1) // 2  # of two micro-batches each
    assert (failure["failure"], failure["step"]) == ("transient_nan", step)
    assert (recovered["failure"], recovered["step"]) == ("transient_nan", step)
    assert trained.progress.faults.recomputed == 1


def test_dropout_drops_the_same_when_a_step_is_done_again(corpus: Path, tmp_path: Path) -> None:
    dropping = MODEL.model_copy(update={"trunk": MODEL.trunk.model_copy(update={"dropout": 0.2})})
    base = Training(tmp_path / "fine", corpus, model=lambda: initialize(build(dropping, SHAPE), 0), steps=4)
    erring = replace(base, folder=tmp_path / "erring", objective=Erring(frozenset({4})))
    _assert_equal(erring.run(), base.run())
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
    _assert_equal(trained, named.run())
    assert not _events(tmp_path / "named", "failure")
    innocent = replace(training, folder=tmp_path / "innocent", objective=NextToken()).run()
    assert weights_sha256(innocent.weights) != weights_sha256(trained.weights), "the document was never read"
    persistent = [event for event in _events(tmp_path / "found", "failure") if event["failure"] == "persistent_nan"]
    assert [event["documents"] for event in persistent] == [[name_of(17)]]


@pytest.mark.parametrize("numbers", [(0, 59), (30, 31, 32)], ids=str)
def test_several_documents_are_found_one_after_the_other(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    corpus = poisoned_corpus(tmp_path / "train", numbers)
    training = Training(tmp_path / "found", corpus, objective=Indigestible(), steps=20)
    trained, ledger = training.run(), training.ledger()
    assert ledger is not None
    assert ledger.documents == tuple(map(name_of, numbers))
    _assert_equal(trained, replace(training, folder=tmp_path / "named", quarantined=ledger.documents).run())


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
    _assert_equal(trained, named.run())
    (failure,) = [event for event in _events(tmp_path / "found", "failure") if "rewind_to" in event]
    assert failure["step"] > rows // 4 > failure["rewind_to"]


@pytest.mark.parametrize("question", [1, 4, 7, 11])
def test_an_interruption_before_or_behind_the_rewind_changes_nothing(
    corpus: Path, tmp_path: Path, question: int
) -> None:
    whole = Training(tmp_path / "whole", corpus, objective=Indigestible(), steps=STEPS, checkpoint_every_steps=3)
    again = replace(whole, folder=tmp_path / "again")
    with pytest.raises(Stopped):
        again.run(_stop_at(question))
    _assert_equal(again.run(), whole.run())


def test_a_rewind_that_died_behind_its_commit_goes_on_without_the_document(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(tmp_path / "found", corpus, objective=Indigestible(), steps=STEPS, checkpoint_every_steps=2)
    monkeypatch.setattr("foundation_core.train.recovery.RewindError", _Killed)
    with pytest.raises(_Killed):
        training.run()
    monkeypatch.undo()
    _assert_equal(training.run(), replace(training, folder=tmp_path / "whole").run())


class _Killed(KeyboardInterrupt):
    """A process that ends at the moment at which it would begin anew."""


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
            again.run(_stop_at(question))
    other = again.run()
    _assert_equal(other, trained)
    assert other.progress.faults.skipped == [skipped]


# ---------------------------------------------------------------------------------------------------- a loss leaps

LEAPS = RecoverySpec(spike="rewind", spike_window_steps=8)


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data set whose poisoned document is first read in a step that has enough losses before it, and its name."""
    folder = tmp_path_factory.mktemp("late")
    plain = Training(folder, poisoned_corpus(folder / "plain", ()))
    rows, order = plain.windows(), plain.order()
    for number in range(60):
        first = first_sample(order, rows.rows_of([name_of(number)]), 14 * 4)
        if first is not None and 9 <= first // 4 <= 11:
            return poisoned_corpus(folder / "train", (number,)), name_of(number)
    raise AssertionError("no document is read that late")


def test_a_document_whose_loss_leaps_is_found_before_anything_learns_from_it(
    late: tuple[Path, str], tmp_path: Path
) -> None:
    corpus, name = late
    training = Training(tmp_path / "found", corpus, objective=Indigestible("leap"), recovery=LEAPS, steps=14)
    trained, ledger = training.run(), training.ledger()
    assert ledger is not None
    assert [(entry.failure, entry.documents) for entry in ledger.entries] == [("loss_spike", (name,))]
    _assert_equal(trained, replace(training, folder=tmp_path / "named", quarantined=(name,)).run())
    off = replace(training, folder=tmp_path / "off", recovery=RecoverySpec()).run()
    assert weights_sha256(off.weights) != weights_sha256(trained.weights)


@pytest.mark.parametrize("question", [None, 5, 12])
def test_a_leap_of_all_rows_is_left_out_also_after_an_interruption(
    late: tuple[Path, str], tmp_path: Path, question: int | None
) -> None:
    """The losses that it is compared with are part of the state."""
    training = Training(tmp_path / "one", late[0], objective=Leaping(10), recovery=LEAPS, steps=14)
    trained = training.run()
    assert trained.progress.faults.skipped == [10]
    again = replace(training, folder=tmp_path / "again")
    if question is not None:
        with pytest.raises(Stopped):
            again.run(_stop_at(question))
    other = again.run()
    _assert_equal(other, trained)
    assert other.progress.faults.skipped == [10]


class Leaping(NextToken):
    """Next token whose loss is a hundred times as large in all rows of one step.

    Args:
        step: from 0, of four samples.
    """

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step, self.leaps = step, False

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """Remember which step it is of."""
        self.leaps = "sample" in batch and bool((batch["sample"] // 4 == self.step).any())
        return super().prepare(batch, seed)

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The real loss, or a leap."""
        return super().loss(model, example, ranks) * (100.0 if self.leaps else 1.0)


def test_a_leap_may_end_the_training(late: tuple[Path, str], tmp_path: Path) -> None:
    spec = LEAPS.model_copy(update={"spike": "stop"})
    with pytest.raises(DivergedError, match="training loss leapt to"):
        Training(tmp_path, late[0], objective=Indigestible("leap"), recovery=spec, steps=14).run()


def test_what_looks_for_leaps_changes_nothing_while_there_are_none(
    corpus: Path, tmp_path: Path, undisturbed: Trained
) -> None:
    _assert_equal(Training(tmp_path, corpus, recovery=LEAPS, steps=STEPS).run(), undisturbed)


@given(st.lists(st.floats(0.1, 10), min_size=8, max_size=64), st.floats(1, 20))
def test_how_large_a_leap_among_the_losses_was_does_not_move_the_bound(losses: list[float], deviations: float) -> None:
    assert leap_bound([*losses, 1e3], deviations) == leap_bound([*losses, 1e9], deviations)
    assert leap_bound([*losses, 1e9], deviations) < 1e3 < statistics.fmean([*losses, 1e9])
    assert leap_bound(losses, deviations) > statistics.median(losses)


# ------------------------------------------------------------------------------------------------ memory is full


@pytest.mark.parametrize("room", [1, 2, 3])
def test_micro_batches_are_halved_until_they_fit_and_the_result_is_that_of_smaller_ones(
    corpus: Path, tmp_path: Path, room: int
) -> None:
    wide = Training(tmp_path / "wide", corpus, objective=Cramped(room), micro_batch_rows=4, steps=STEPS)
    fitting = 1 if room == 1 else 2
    narrow = Training(tmp_path / "narrow", corpus, micro_batch_rows=fitting, steps=STEPS).run()
    _assert_equal(wide.run(), narrow)
    failures = _events(tmp_path / "wide", "failure")
    assert [failure["failure"] for failure in failures] == ["device_memory"] * (2 if room == 1 else 1)
    assert [event["failure"] for event in _events(tmp_path / "wide", "recovered")] == ["device_memory"]
    again = replace(wide, folder=tmp_path / "again")
    with pytest.raises(Stopped):
        again.run(_stop_at(3))
    _assert_equal(again.run(), narrow)
    assert len(_events(tmp_path / "again", "failure")) == len(failures), "it is remembered"


def test_a_device_without_room_for_a_row_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="full with 1 rows a micro-batch, and fewer there cannot be"):
        Training(tmp_path, corpus, objective=Cramped(0), micro_batch_rows=4, steps=STEPS).run()


def test_one_of_several_ranks_has_all_begin_again_with_what_memory_has_room_for(corpus: Path, tmp_path: Path) -> None:
    """It cannot vote: the others are in an exchange that it never comes to."""

    class OneOfTwo(TorchEngine):
        world = 2

    narrow = Training(tmp_path / "narrow", corpus, engine=OneOfTwo, micro_batch_rows=1, steps=STEPS).run()
    cramped = Training(
        tmp_path / "full", corpus, engine=OneOfTwo, objective=Cramped(1), micro_batch_rows=2, steps=STEPS
    )
    with pytest.raises(DeviceMemoryError, match="the memory of rank 0 is full with 2 rows a micro-batch"):
        cramped.run()
    _assert_equal(cramped.run(), narrow)
    assert len(_events(tmp_path / "full", "failure")) == 1


def test_a_joint_batch_is_not_divided(corpus: Path, tmp_path: Path) -> None:
    class Joint(Cramped):
        decomposable = False

    with pytest.raises(SetupError, match="needs its batch in one piece"):
        Training(tmp_path, corpus, objective=Joint(2), micro_batch_rows=4, steps=STEPS).run()


def test_halving_may_be_turned_off(corpus: Path, tmp_path: Path) -> None:
    spec = RecoverySpec(halve_micro_batch=False)
    with pytest.raises(SetupError, match="halve_micro_batch is off"):
        Training(tmp_path, corpus, objective=Cramped(2), recovery=spec, micro_batch_rows=4, steps=STEPS).run()


# ---------------------------------------------------------------------------------------------------- validation


def test_a_validation_that_is_not_finite_is_told_and_never_the_best(
    corpus: Path, tmp_path: Path, undisturbed: Trained
) -> None:
    class Blind(NextToken):
        validations = 0

        def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
            real = super().loss(model, example, ranks)
            if torch.is_grad_enabled():
                return real
            self.validations += 1
            return real * (float("nan") if self.validations == 2 else 1.0)

    trained = Training(tmp_path, corpus, objective=Blind(), steps=STEPS).run()
    assert trained.losses == undisturbed.losses
    assert sorted(trained.validations) == [3, 9, 12]
    said = [event["text"] for event in _events(tmp_path, "say")]
    assert "the validation loss of step 6 is nan: it is not counted" in said
