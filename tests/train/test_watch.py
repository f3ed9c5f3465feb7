"""What a rank's watch exchanges with the others, and what rank 0 says of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cluster.embedded import free_port
from foundation_core.events import EventLog, read_events
from foundation_core.specs import OptimizerSpec
from foundation_core.specs.watch import WatchSpec
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.stragglers import LOOKS
from foundation_core.train.votes import MOST_RANKS, agree
from foundation_core.train.watch import Watched
from tests.support.training import tiny_model

REPOSITORY = Path(__file__).parents[2]
WORLD, WINDOW = 3, 5


class Exchange:
    """Adds up what ranks that are threads bring."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(WORLD)
        self._brought: dict[int, Tensor] = {}

    def sum(self, rank: int, value: Tensor) -> Tensor:
        """The sum over all ranks."""
        self._brought[rank] = value
        self._barrier.wait()
        total = torch.stack([self._brought[each] for each in range(WORLD)]).sum(0)
        self._barrier.wait()
        return total


class ThreadEngine(TorchEngine):
    """One of three ranks, each a thread."""

    world = WORLD

    def __init__(self, rank: int, exchange: Exchange) -> None:
        super().__init__(tiny_model(), EngineRequest(OptimizerSpec()))
        self.rank, self._exchange = rank, exchange  # type: ignore[misc]

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """The sum."""
        return self._exchange.sum(self.rank, value)


class FixedWork:
    """A stopwatch that shows what it is told to."""

    def __init__(self, seconds: list[float]) -> None:
        self._seconds = iter(seconds)

    def taken_seconds(self) -> float:
        """The next figure."""
        return next(self._seconds)


def _train(folder: Path, seconds: dict[int, list[float]], spec: WatchSpec) -> list[dict[str, Any]]:
    """The events of ranks whose own work takes so long in each step."""
    exchange, steps = Exchange(), len(seconds[0])
    log = EventLog(folder)
    for rank in range(WORLD):
        log.write("rank", rank=rank, node="n", host=f"host-{rank}", pid=1)

    def rank_of(rank: int) -> None:
        engine = ThreadEngine(rank, exchange)
        watch = Watched(folder, spec, engine, log)
        watch.own = FixedWork(seconds[rank])  # type: ignore[assignment]
        for step in range(1, steps + 1):
            watch.agreed(agree(engine, {"stop": 0.0, **watch.votes()}), step)

    ranks = [threading.Thread(target=rank_of, args=(rank,)) for rank in range(WORLD)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join()
    return [event for _, event in read_events(folder) if event["kind"] in ("failure", "recovered")]


def test_the_slow_rank_is_named_with_its_host_once_and_when_it_is_well(tmp_path: Path) -> None:
    slow, spec = [1.0] * 10 + [3.0] * 10 + [1.0] * 10, WatchSpec(straggler_steps=WINDOW, straggler_seconds=0.0)
    told = _train(tmp_path, {0: [1.0] * 30, 1: [1.1] * 30, 2: slow}, spec)
    assert [(event["kind"], event["failure"], event["rank"]) for event in told] == [
        ("failure", "straggler", 2), ("recovered", "straggler", 2),
    ]  # fmt: skip
    named, well = told
    assert (named["host"], named["step"]) == ("host-2", 10 + (WINDOW + 1) // 2 + LOOKS - 1)
    assert "rank 2 on host-2 takes 2.9 times" in named["what"]
    assert (well["step"], well["seconds"] >= 0) == (20 + (WINDOW + 1) // 2 + LOOKS - 1, True)


@pytest.mark.parametrize("factor", [None, 4.0])
def test_nobody_is_named_below_the_factor_or_without_one(tmp_path: Path, factor: float | None) -> None:
    spec = WatchSpec(straggler_steps=WINDOW, straggler_factor=factor, straggler_seconds=0.0)
    assert _train(tmp_path, {0: [1.0] * 30, 1: [1.1] * 30, 2: [3.0] * 30}, spec) == []


def test_a_watch_tells_what_energy_was_taken_and_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    engine = TorchEngine(tiny_model(), EngineRequest(OptimizerSpec()))
    log = EventLog(tmp_path)
    with Watched(tmp_path, WatchSpec(), engine, log) as watch:
        watch.begins("step", 1)
        assert watch.votes() == {}, "one rank has nobody to compare itself with"
        assert {thread.name for thread in set(threading.enumerate()) - before} == {"watchdog", "energy"}
    assert set(threading.enumerate()) == before
    told = [event for _, event in read_events(tmp_path) if event["kind"] == "energy"]
    assert [event["rank"] for event in told] == [0]


@pytest.mark.slow
@pytest.mark.parametrize("slow", [0, 1])
def test_a_rank_that_really_has_more_to_do_is_named_and_the_other_is_not(
    corpus: Path, tmp_path: Path, slow: int
) -> None:
    """Two processes that exchange gradients: their steps take equally long, whoever is slow."""
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    common |= {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.train.slowed_rank", str(tmp_path), str(corpus), str(slow)]
    ranks = [subprocess.Popen(command, env={**common, "RANK": str(rank)}, cwd=REPOSITORY) for rank in range(2)]
    try:
        assert [rank.wait(240) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    told = [event for _, event in read_events(tmp_path) if event["kind"] == "failure"]
    assert {(event["failure"], event["rank"], event["host"]) for event in told} == {
        ("straggler", slow, socket.gethostname())
    }


def test_more_ranks_than_are_compared_are_told_so(tmp_path: Path) -> None:
    class Many(TorchEngine):
        world = MOST_RANKS

    log = EventLog(tmp_path)
    engine = Many(tiny_model(), EngineRequest(OptimizerSpec()))
    assert Watched(tmp_path, WatchSpec(), engine, log).votes()
    assert not [event for _, event in read_events(tmp_path) if "no straggler" in str(event.get("text"))]
    Many.world = MOST_RANKS + 1
    assert Watched(tmp_path, WatchSpec(), engine, log).votes() == {}
    assert [event for _, event in read_events(tmp_path) if "no straggler is named" in str(event.get("text"))]
