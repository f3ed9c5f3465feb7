"""A device without room for a micro-batch gets smaller ones; a validation that is not finite ends nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from foundation_core.errors import DeviceMemoryError, SetupError, Stopped
from foundation_core.objectives.base import ALONE, Example, Ranks
from foundation_core.objectives.language import NextToken
from foundation_core.specs.recovery import RecoverySpec
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import Engine, TorchEngine
from foundation_core.train.recovery import is_memory_full
from tests.support.faults import (
    Cramped,
    events_of,
    stop_at,
)
from tests.support.training import (
    Trained,
    Training,
    weights_sha256,
)

STEPS = 12


def _assert_alike(one: Trained, other: Trained) -> None:
    """The same to the last digit; validations, whose rows are added up in other groups, but for that digit."""
    assert one.losses == other.losses
    assert one.grad_norms == other.grad_norms
    assert weights_sha256(one.weights) == weights_sha256(other.weights)
    assert one.validations == pytest.approx(other.validations, rel=1e-6)


@pytest.mark.parametrize("device", ["cuda", "host"])
@pytest.mark.parametrize("room", [1, 2, 3])
def test_micro_batches_are_halved_until_they_fit_and_the_result_is_that_of_smaller_ones(
    corpus: Path, tmp_path: Path, room: int, device: Literal["cuda", "host"]
) -> None:
    wide = Training(tmp_path / "wide", corpus, objective=Cramped(room, device), micro_batch_rows=4, steps=STEPS)
    fitting = 1 if room == 1 else 2
    narrow = Training(tmp_path / "narrow", corpus, micro_batch_rows=fitting, steps=STEPS).run()
    _assert_alike(wide.run(), narrow)
    failures = events_of(tmp_path / "wide", "failure")
    assert [failure["failure"] for failure in failures] == ["device_memory"] * (2 if room == 1 else 1)
    assert [event["failure"] for event in events_of(tmp_path / "wide", "recovered")] == ["device_memory"]
    again = replace(wide, folder=tmp_path / "again")
    with pytest.raises(Stopped):
        again.run(stop_at(3))
    _assert_alike(again.run(), narrow)
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
    _assert_alike(cramped.run(), narrow)
    assert len(events_of(tmp_path / "full", "failure")) == 1


@pytest.mark.parametrize("device", ["cuda", "host"])
def test_a_validation_takes_as_many_rows_as_there_is_room_for_and_finds_the_same(
    corpus: Path, tmp_path: Path, device: Literal["cuda", "host"]
) -> None:
    objective = Cramped(1, device, when="validation")
    training = Training(tmp_path, corpus, objective=objective, micro_batch_rows=1, steps=STEPS)
    trained = training.run()
    failures = events_of(tmp_path, "failure")
    assert {(failure["failure"], failure["step"]) for failure in failures} == {("device_memory", 3)}
    assert len(failures) == objective.refused == 2, "all 4 rows, 2; the validations behind it remember"
    assert [event["failure"] for event in events_of(tmp_path, "recovered")] == ["device_memory"]
    narrow = Training(tmp_path / "narrow", corpus, micro_batch_rows=1, steps=STEPS).run()
    _assert_alike(trained, narrow)
    with pytest.raises(SetupError, match="full with 1 rows of a validation"):
        replace(training, folder=tmp_path / "none", objective=Cramped(0, device, when="validation")).run()


def test_a_validation_of_which_one_rank_has_no_room_has_all_begin_again(corpus: Path, tmp_path: Path) -> None:
    class OneOfTwo(TorchEngine):
        world = 2

    training = Training(tmp_path, corpus, engine=OneOfTwo, objective=Cramped(2, when="validation"), steps=2)
    with pytest.raises(DeviceMemoryError, match="the memory of rank 0 is full with 4 rows of a validation"):
        training.run()


def test_what_is_no_want_of_memory_is_not_taken_for_it(corpus: Path, tmp_path: Path) -> None:
    class Wrong(NextToken):
        def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (memory 4x5 and 6x7)")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Training(tmp_path, corpus, objective=Wrong(), steps=STEPS).run()
    assert is_memory_full(MemoryError())


def test_a_joint_batch_is_not_divided(corpus: Path, tmp_path: Path) -> None:
    class Joint(Cramped):
        decomposable = False

    joint = Training(tmp_path, corpus, objective=Joint(2), micro_batch_rows=3, batch_rows=3, steps=STEPS)
    with pytest.raises(
        SetupError, match="full with 3 rows a micro-batch, and the objective needs its batch in one piece"
    ):
        joint.run()
    validating = replace(joint, folder=tmp_path / "validation", objective=Joint(2, when="validation"))
    with pytest.raises(
        SetupError, match=r"full with 4 rows of a validation, .*\n.*lower --pretrain\.validation_rows, or"
    ):
        validating.run()


def test_a_step_that_was_full_and_is_then_left_out_is_over_with_its_want_of_memory(
    corpus: Path, tmp_path: Path
) -> None:
    class AndThenNothing(Cramped):
        harmed = False

        def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
            real, harmed = super().loss(model, example, ranks), self.harmed
            self.harmed = True
            return real if harmed else real * float("nan")

    spec = RecoverySpec(recomputations=0, not_finite="skip")
    Training(tmp_path, corpus, objective=AndThenNothing(2), recovery=spec, micro_batch_rows=4, steps=STEPS).run()
    told = {kind: [event["failure"] for event in events_of(tmp_path, kind)] for kind in ("failure", "recovered")}
    assert told["failure"] == ["device_memory", "persistent_nan"]
    assert sorted(told["recovered"]) == sorted(told["failure"])


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
