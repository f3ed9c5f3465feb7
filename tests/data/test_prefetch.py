"""Batches made beside the training."""

from __future__ import annotations

from threading import Event, active_count

import pytest
import torch

from foundation_core.data.loading.loader import Batch
from foundation_core.data.loading.prefetch import Prefetched
from foundation_core.errors import DataError


class Numbers:
    """A batch that says its step; step 7 cannot be read."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.third = Event()

    def micro_batches(self, step: int) -> list[Batch]:
        if step == 7:
            raise DataError("shard 3 is damaged")
        self.made.append(step)
        if len(self.made) == 3:
            self.third.set()
        return [{"tokens": torch.full((2, 3), step)}]


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_the_batches_are_those_that_were_asked_for_wherever_one_begins(ahead: int) -> None:
    with Prefetched(Numbers(), ahead) as batches:
        for step in (0, 1, 2, 5, 6, 3, 3, 4):
            assert batches.micro_batches(step)[0]["tokens"].eq(step).all()


def test_the_next_steps_are_made_before_they_are_asked_for_and_no_more_than_the_bound() -> None:
    numbers = Numbers()
    with Prefetched(numbers, 1) as batches:
        batches.micro_batches(0)
        assert numbers.third.wait(timeout=60)  # one is ready, one waits for room
    assert numbers.made == [0, 1, 2]
    alone = Numbers()
    Prefetched(alone, 0).micro_batches(0)  # the negative control
    assert alone.made == [0]


def test_an_error_comes_up_at_its_own_step_and_the_training_can_go_on_elsewhere() -> None:
    with Prefetched(Numbers(), 3) as batches:
        for step in (5, 6):
            batches.micro_batches(step)
        for _ in range(2):
            with pytest.raises(DataError, match="shard 3 is damaged"):
                batches.micro_batches(7)
        assert batches.micro_batches(8)[0]["tokens"].eq(8).all()


def test_no_thread_stays_behind() -> None:
    before = active_count()
    with Prefetched(Numbers(), 2) as batches:
        batches.micro_batches(0)
        assert active_count() == before + 1
        batches.micro_batches(4)
        assert active_count() == before + 1
    assert active_count() == before
