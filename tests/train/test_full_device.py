"""A device without room for a micro-batch gets smaller ones; a validation that is not finite ends nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from foundation_core.errors import DeviceMemoryError, SetupError, Stopped
from foundation_core.objectives.base import ALONE, Example, Ranks
from foundation_core.objectives.language import NextToken
from foundation_core.spec_recovery import RecoverySpec
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import Engine, TorchEngine
from tests.support.faults import (
    Cramped,
    assert_same,
    events_of,
    stop_at,
)
from tests.support.training import (
    Trained,
    Training,
)

STEPS = 12


@pytest.mark.parametrize("room", [1, 2, 3])
def test_micro_batches_are_halved_until_they_fit_and_the_result_is_that_of_smaller_ones(
    corpus: Path, tmp_path: Path, room: int
) -> None:
    wide = Training(tmp_path / "wide", corpus, objective=Cramped(room), micro_batch_rows=4, steps=STEPS)
    fitting = 1 if room == 1 else 2
    narrow = Training(tmp_path / "narrow", corpus, micro_batch_rows=fitting, steps=STEPS).run()
    assert_same(wide.run(), narrow)
    failures = events_of(tmp_path / "wide", "failure")
    assert [failure["failure"] for failure in failures] == ["device_memory"] * (2 if room == 1 else 1)
    assert [event["failure"] for event in events_of(tmp_path / "wide", "recovered")] == ["device_memory"]
    again = replace(wide, folder=tmp_path / "again")
    with pytest.raises(Stopped):
        again.run(stop_at(3))
    assert_same(again.run(), narrow)
    assert len(events_of(tmp_path / "again", "failure")) == len(failures), "it is remembered"


def test_a_device_without_room_for_a_row_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="full with 1 rows a micro-batch, and fewer there cannot be"):
        Training(tmp_path, corpus, objective=Cramped(0), micro_batch_rows=4, steps=STEPS).run()


def test_one_of_several_ranks_has_all_begin_again_with_what_memory_has_room_for(corpus: Path, tmp_path: Path) -> None:
    """It cannot vote: the others are in an exchange that it never comes to."""

    class OneOfTwo(TorchEngine):
        world = 2

    class SavedByOne(Training):
        def _checkpoints(self, engine: Engine) -> Checkpoints:
            alone = copy.copy(engine)  # the other rank is not there to write its part
            alone.world = 1
            return super()._checkpoints(alone)

    narrow = SavedByOne(tmp_path / "narrow", corpus, engine=OneOfTwo, micro_batch_rows=1, steps=STEPS).run()
    cramped = SavedByOne(
        tmp_path / "full", corpus, engine=OneOfTwo, objective=Cramped(1), micro_batch_rows=2, steps=STEPS
    )
    with pytest.raises(DeviceMemoryError, match="the memory of rank 0 is full with 2 rows a micro-batch"):
        cramped.run()
    assert_same(cramped.run(), narrow)
    assert len(events_of(tmp_path / "full", "failure")) == 1


def test_a_joint_batch_is_not_divided(corpus: Path, tmp_path: Path) -> None:
    class Joint(Cramped):
        decomposable = False

    with pytest.raises(SetupError, match="needs its batch in one piece"):
        Training(tmp_path, corpus, objective=Joint(2), micro_batch_rows=4, steps=STEPS).run()


def test_halving_may_be_turned_off(corpus: Path, tmp_path: Path) -> None:
    spec = RecoverySpec(halve_micro_batch=False)
    with pytest.raises(SetupError, match="halve_micro_batch is off"):
        Training(tmp_path, corpus, objective=Cramped(2), recovery=spec, micro_batch_rows=4, steps=STEPS).run()


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
    said = [event["text"] for event in events_of(tmp_path, "say")]
    assert "the validation loss of step 6 is nan: it is not counted" in said
