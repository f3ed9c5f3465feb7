"""A step that fails on one rank is done again, left out, or gone back from by all: in every engine that has several."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.embedded import free_port
from tests.support.faults import name_of, poisoned_corpus

pytestmark = pytest.mark.timeout(600)
REPOSITORY = Path(__file__).parents[2]
POISONED = 17
ENGINES = ("torch", "zero-0", "zero-1", "zero-2", "zero-3")
Outcomes = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Gives what came of a training of two ranks, by its name in `faults.py`."""
    out = tmp_path_factory.mktemp("faults")
    corpus = poisoned_corpus(out / "tokens" / "train", (POISONED,))
    common = {
        **os.environ, "WORLD_SIZE": "2", "LOCAL_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "PATH": "",
        "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.distributed.faults", str(corpus), str(out)]
    logs = [out / f"rank-{rank}.log" for rank in range(2)]
    ranks = []
    for rank, log in enumerate(logs):
        with open(log, "wb") as sink:
            environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            ranks.append(
                subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=sink, stderr=subprocess.STDOUT)
            )
    try:
        status = [rank.wait() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert status == [0, 0], "\n".join(log.read_text()[-4000:] for log in logs)
    return lambda name: torch.load(out / f"{name}.pt")


def _assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    for what in ("losses", "grad_norms", "hash"):
        assert one[what] == other[what]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_error_of_one_machine_shows_nowhere(outcomes: Outcomes, engine: str) -> None:
    _assert_equal(outcomes(f"erring-{engine}"), outcomes(f"plain-{engine}"))
    assert outcomes(f"erring-{engine}")["recomputed"] == 1
    assert outcomes(f"plain-{engine}")["recomputed"] == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_the_ranks_find_the_document_and_end_as_if_it_had_never_been_there(outcomes: Outcomes, engine: str) -> None:
    found, named = outcomes(f"found-{engine}"), outcomes(f"named-{engine}")
    assert found["documents"] == (name_of(POISONED),)
    assert named["documents"] == ()
    _assert_equal(found, named)
    assert found["hash"] != outcomes(f"plain-{engine}")["hash"], "the document was never read"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_leap_in_the_rows_of_one_rank_is_left_out_by_all(outcomes: Outcomes, engine: str) -> None:
    leap = outcomes(f"leap-{engine}")
    assert leap["skipped"] == [10]
    assert sorted(leap["losses"]) == [step for step in range(1, 17) if step != 11]
