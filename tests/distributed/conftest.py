"""Two real ranks in processes of their own, started once for all tests of this folder."""

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
from foundation_core.specs import OptimizerSpec
from tests.distributed.elastic import SIXTY
from tests.distributed.ranks import JOINT
from tests.support.training import Trained, Training, write_corpus

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def distributed_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token data set of documents of very unequal lengths."""
    return write_corpus(tmp_path_factory.mktemp("tokens") / "train")


@pytest.fixture(scope="session")
def two_ranks(distributed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Gives the outcome of a training of two ranks, by its name in `ranks.py`."""
    out = tmp_path_factory.mktemp("two_ranks")
    common = {
        **os.environ,
        "WORLD_SIZE": "2",
        "LOCAL_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "PATH": "",  # neither a compiler nor ninja: nothing may need them
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.distributed.ranks", str(distributed_corpus), str(out)]
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
    for name, joint in JOINT.items():
        trained[name] = Training(folder / name, distributed_corpus, **joint).run()
    return lambda name: trained[name]
