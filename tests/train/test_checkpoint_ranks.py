"""The ranks of a training save one checkpoint together, fail together, and restore the same one."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from foundation_core.errors import DivergedError, ElsewhereError
from foundation_core.specs import OptimizerSpec
from foundation_core.train import checkpoint as saving
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import Engine, EngineRequest, TorchEngine
from foundation_core.train.manifest import finished, read_manifest
from foundation_core.train.retention import Retention
from foundation_core.train.votes import agree
from tests.support.ranks import ThreadedEngine, of_each_rank


def _module(fill: float = 0.0) -> nn.Module:
    module = nn.Linear(4, 3)
    nn.init.constant_(module.weight, fill)
    return module


def _checkpoints(folder: Path, engine: Engine) -> Checkpoints:
    return Checkpoints(folder, engine, {"order": "0"}, Retention(2))


def test_what_three_ranks_saved_one_restores_and_three_again(tmp_path: Path) -> None:
    def save(engine: ThreadedEngine) -> None:
        with _checkpoints(tmp_path, engine) as checkpoints:
            checkpoints.save(5, {"labels": 5})
            checkpoints.finish()

    assert of_each_rank(3, save, lambda: _module(1.5)) == [None, None, None]
    assert read_manifest(finished(tmp_path)[5])["world"] == 3
    alone = TorchEngine(_module(), EngineRequest(OptimizerSpec()))
    with _checkpoints(tmp_path, alone) as checkpoints:
        assert checkpoints.restore() == (5, {"labels": 5})
    assert torch.equal(alone.weights()["weight"], torch.full((3, 4), 1.5))

    def restore(engine: ThreadedEngine) -> float:
        with _checkpoints(tmp_path, engine) as checkpoints:
            assert checkpoints.restore() == (5, {"labels": 5})
        return float(engine.weights()["weight"].mean())

    assert of_each_rank(3, restore, _module) == [1.5, 1.5, 1.5]


def test_it_is_committed_by_the_votes_once_every_rank_has_written(tmp_path: Path) -> None:
    """Rank 1 is slow: as long as its part is not on disk, no vote makes a checkpoint of it."""
    slow = threading.Event()

    def work(engine: ThreadedEngine) -> list[list[int]]:
        seen = []
        with _checkpoints(tmp_path, engine) as checkpoints:
            if engine.rank == 1:
                checkpoints._background.start(slow.wait)
            checkpoints.save(1, {})
            checkpoints.hear(agree(engine, checkpoints.votes()))
            seen.append(list(finished(tmp_path)))
            engine.barrier()
            slow.set()
            checkpoints.finish()
            seen.append(list(finished(tmp_path)))
        return seen

    assert of_each_rank(2, work, _module) == [[[], [1]], [[], [1]]]


@pytest.mark.parametrize("failing", [0, 1])
def test_what_fails_in_one_ranks_thread_is_raised_on_all_at_the_next_step(
    tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = saving.write_hashed

    def fails(path: Path, *rest: Any) -> str:  # no disk can be made to fail for one thread alone
        if path.name == f"rank-{failing:05d}.safetensors" and "step-00000002" in str(path):
            raise PermissionError(13, "Permission denied")
        return write(path, *rest)

    monkeypatch.setattr(saving, "write_hashed", fails)

    def work(engine: ThreadedEngine) -> None:
        with _checkpoints(tmp_path, engine) as checkpoints:
            checkpoints.save(1, {})
            checkpoints.save(2, {})
            checkpoints._background.close()
            checkpoints.hear(agree(engine, checkpoints.votes()))

    errors = of_each_rank(2, work, _module)
    assert isinstance(errors[failing], PermissionError)
    other = errors[1 - failing]
    assert type(other) is ElsewhereError, "so that the one that knows the reason is believed"
    assert "step 2" in str(other)
    assert list(finished(tmp_path)) == [1]


def test_ranks_that_diverge_together_keep_what_they_had_saved(tmp_path: Path) -> None:
    def work(engine: ThreadedEngine) -> None:
        with _checkpoints(tmp_path, engine) as checkpoints:
            checkpoints.save(1, {})
            raise DivergedError("nan")

    assert [type(error) for error in of_each_rank(2, work, _module)] == [DivergedError] * 2
    assert list(finished(tmp_path)) == [1]


def test_ranks_agree_on_which_checkpoint_is_whole(tmp_path: Path) -> None:
    """Each rank compares its share of the files; the damage is in the share of rank 1."""

    def save(engine: ThreadedEngine) -> None:
        with _checkpoints(tmp_path / "them", engine) as checkpoints:
            for step in (1, 2):
                checkpoints.save(step, {"labels": step})
            checkpoints.finish()

    of_each_rank(2, save, _module)
    path = tmp_path / "them" / "step-00000002" / "rank-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    def restore(engine: ThreadedEngine) -> Any:
        with _checkpoints(tmp_path / "them", engine) as checkpoints:
            return checkpoints.restore()

    assert of_each_rank(2, restore, _module) == [(1, {"labels": 1})] * 2
