"""Two real ranks in processes of their own, started once for all tests of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.embedded import free_port
from foundation_core.specs import OptimizerSpec
from tests.distributed.elastic import KINDS, SIXTY
from tests.distributed.ranks import JOINT
from tests.support.training import Trained, Training, write_corpus

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def distributed_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token data set of documents of very unequal lengths."""
    return write_corpus(tmp_path_factory.mktemp("tokens") / "train")


def _done(corpus: Path, out: Path, part: str, world: int = 2, **environment: str) -> None:
    """Do the trainings of a part of `ranks.py`."""
    common = {
        **os.environ,
        "WORLD_SIZE": str(world),
        "LOCAL_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    command = [sys.executable, "-m", "tests.distributed.ranks", str(corpus), str(out), part]
    logs = [out / f"{part}-rank-{rank}.log" for rank in range(world)]
    ranks = []
    for rank, log in enumerate(logs):
        with open(log, "wb") as sink:
            own = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            ranks.append(subprocess.Popen(command, env=own, cwd=REPOSITORY, stdout=sink, stderr=subprocess.STDOUT))
    try:
        status = [rank.wait() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert status == [0] * world, "\n".join(log.read_text()[-4000:] for log in logs)


@pytest.fixture(scope="session")
def two_ranks(distributed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Gives the outcome of a training of two ranks, by its name in `ranks.py`."""
    out = tmp_path_factory.mktemp("two_ranks")
    _done(distributed_corpus, out, "fast", PATH="")  # neither a compiler nor ninja: nothing may need them
    return lambda name: torch.load(out / f"{name}.pt")


@pytest.fixture(scope="session")
def slow_ranks(distributed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """The same of those that take minutes, of which some were ended by one rank; needs a compiler."""
    for program in ("g++", "ninja"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}, with which DeepSpeed makes its AdamW")
    out = tmp_path_factory.mktemp("slow_ranks")
    _done(distributed_corpus, out, "slow")
    _done(distributed_corpus, out, "alone", world=1)
    return lambda name: torch.load(out / f"{name}.pt")


@pytest.fixture(scope="session")
def one_rank(distributed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Gives the outcome of the same training by the torch engine, in this process."""
    folder = tmp_path_factory.mktemp("one_rank")
    trained = {
        "even": Training(folder / "even", distributed_corpus).run(),
        "uneven": Training(folder / "uneven", distributed_corpus, batch_rows=5).run(),
        "tokens": Training(folder / "tokens", distributed_corpus, max_tokens=80).run(),
        "sixty": Training(folder / "sixty", distributed_corpus, **SIXTY).run(),
        "long": Training(folder / "long", distributed_corpus, steps=30, optimizer=OptimizerSpec(lr=2e-2)).run(),
    }
    for kind in ("muon", "bf16"):
        trained[kind] = Training(folder / kind, distributed_corpus, **{**SIXTY, **KINDS[kind]}).run()
    for name, joint in JOINT.items():
        trained[name] = Training(folder / name, distributed_corpus, **joint).run()
    return lambda name: trained[name]
