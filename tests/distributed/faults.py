"""One rank of trainings whose steps fail: `python -m tests.distributed.faults CORPUS OUT`.

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which rank this is. Rank 0 writes what came of each to OUT/<name>.pt.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cluster.deepspeed_engine import engine_factory
from foundation_core.objectives.base import ALONE, Example, Ranks
from foundation_core.objectives.language import NextToken
from foundation_core.specs.recovery import RecoverySpec
from foundation_core.train.data_parallel import DataParallelEngine
from foundation_core.train.engine import EngineFactory
from tests.support.faults import Erring, Indigestible, Tasted, name_of
from tests.support.training import Training, weights_sha256

POISONED, STEPS = 17, 16
ENGINES: dict[str, EngineFactory] = {
    "torch": DataParallelEngine,
    **{f"zero-{stage}": engine_factory("deepspeed", stage) for stage in (1, 3)},
}


class Leaping(NextToken):
    """Next token whose loss is a hundred times as large in the rows of one sample's micro-batch.

    Args:
        sample: its number.
    """

    def __init__(self, sample: int) -> None:
        super().__init__()
        self.sample = sample

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """Remember whether it is there."""
        plain = super().prepare(batch, seed)
        return Tasted(plain.inputs, plain.labels, plain.count, bool((batch["sample"] == self.sample).any()))

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The real loss, or a leap."""
        assert isinstance(example, Tasted)
        leaps = example.poisoned and torch.is_grad_enabled()
        return super().loss(model, example, ranks) * (100.0 if leaps else 1.0)


def outcome(training: Training) -> dict[str, Any]:
    """What is compared of a training, and what it found out."""
    trained, ledger = training.run(), training.ledger()
    assert ledger is not None
    return {
        "losses": trained.losses, "grad_norms": trained.grad_norms, "hash": weights_sha256(trained.weights),
        "documents": ledger.documents, "skipped": trained.progress.faults.skipped,
        "recomputed": trained.progress.faults.recomputed,
    }  # fmt: skip


def trainings(run: Callable[..., Training], out: Path) -> dict[str, Training]:
    """All of them, by name."""
    found: dict[str, Training] = {}
    leaps = RecoverySpec(spike="skip", spike_window_steps=8)
    erring = Erring(frozenset({7}) if dist.get_rank() == 1 else frozenset())  # the machine of one rank alone
    for name, engine in ENGINES.items():
        plain = run(out / f"plain-{name}", engine=engine, steps=STEPS, batch_rows=5)
        found |= {
            f"plain-{name}": plain,
            f"erring-{name}": replace(plain, folder=out / f"erring-{name}", objective=replace(erring)),
            f"found-{name}": replace(plain, folder=out / f"found-{name}", objective=Indigestible()),
            f"named-{name}": replace(plain, folder=out / f"named-{name}", quarantined=(name_of(POISONED),)),
            f"leap-{name}": replace(plain, folder=out / f"leap-{name}", objective=Leaping(10 * 5), recovery=leaps),
        }
    return found


def main(corpus: Path, out: Path) -> None:
    """Do every training."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for name, training in trainings(partial(Training, corpus=corpus), out).items():
        body = outcome(training)
        if dist.get_rank() == 0:
            torch.save(body, out / f"{name}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
