"""A loss that leaps is seen before anything learns from it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from foundation_core.data.loading.quarantine import first_sample
from foundation_core.errors import DivergedError, Stopped
from foundation_core.objectives.base import ALONE, Example, Ranks
from foundation_core.objectives.language import NextToken
from foundation_core.specs.recovery import RecoverySpec
from foundation_core.train.blame import leap_bound
from tests.support.faults import (
    Indigestible,
    assert_same,
    name_of,
    poisoned_corpus,
    stop_at,
)
from tests.support.training import (
    Trained,
    Training,
    weights_sha256,
)

STEPS = 12
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
    assert_same(trained, replace(training, folder=tmp_path / "named", quarantined=(name,)).run())
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
            again.run(stop_at(question))
    other = again.run()
    assert_same(other, trained)
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
    assert_same(Training(tmp_path, corpus, recovery=LEAPS, steps=STEPS).run(), undisturbed)


@given(st.lists(st.floats(0.1, 10), min_size=8, max_size=64), st.floats(1, 20))
def test_how_large_a_leap_among_the_losses_was_does_not_move_the_bound(losses: list[float], deviations: float) -> None:
    assert leap_bound([*losses, 1e3], deviations) == leap_bound([*losses, 1e9], deviations)
    assert leap_bound([*losses, 1e9], deviations) < 1e3 < statistics.fmean([*losses, 1e9])
    assert leap_bound(losses, deviations) > statistics.median(losses)
