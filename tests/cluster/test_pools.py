"""A pool gives every result, and the error of a piece as it was raised."""

from __future__ import annotations

import os
import signal

import pytest

from cluster.pools import ProcessPool
from foundation_core.errors import DataError, TransientError
from tests.support.pieces import killed, refused, squared


def test_every_piece_is_done_once_in_processes_of_their_own() -> None:
    found = list(ProcessPool().map(squared, range(20), workers=2))
    assert sorted(square for square, _ in found) == [number**2 for number in range(20)]
    assert os.getpid() not in {pid for _, pid in found}


def test_an_error_of_a_piece_is_raised_as_it_was() -> None:
    with pytest.raises(DataError) as caught:
        list(ProcessPool().map(refused, ["a"], workers=1))
    assert (caught.value.found, caught.value.allowed, caught.value.fix) == ("found a", "allowed", "fix")


def test_a_worker_that_is_killed_is_worth_another_try() -> None:
    with pytest.raises(TransientError, match="died"):
        list(ProcessPool().map(killed, [int(signal.SIGKILL)], workers=1))
