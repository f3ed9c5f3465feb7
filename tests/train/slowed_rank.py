"""One of two ranks, of which one has more to do: `python -m tests.train.slowed_rank FOLDER CORPUS SLOW`.

Rank SLOW computes each forward pass `TIMES` times, on its own, as on a host where somebody else is at work. RANK,
WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which rank this is.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foundation_core.data.loading.loader import Loader
from foundation_core.data.loading.order import Order
from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.events import EventLog, SilentLog
from foundation_core.objectives.base import ALONE, Example, Ranks
from foundation_core.objectives.language import NextToken
from foundation_core.specs import OptimizerSpec
from foundation_core.specs.watch import WatchSpec
from foundation_core.train.data_parallel import DataParallelEngine
from foundation_core.train.engine import EngineRequest
from foundation_core.train.step import train_step
from foundation_core.train.votes import agree
from foundation_core.train.watch import Watched
from tests.support.training import MODEL, tiny_model

WATCH = WatchSpec(straggler_factor=3.0, straggler_steps=10, straggler_seconds=0.0)
STEPS, TIMES = 40, 20


class Burdened(NextToken):
    """Next token, whose forward pass is computed several times and counted once."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The real loss, after some work for nothing."""
        with torch.no_grad():
            for _ in range(self.times - 1):
                super().loss(model, example, ranks)
        return super().loss(model, example, ranks)


def main(folder: Path, corpus: Path, slow: int) -> None:
    """Take the steps."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    engine = DataParallelEngine(tiny_model(), EngineRequest(OptimizerSpec(lr=1e-3), micro_batch_rows=2))
    rows, objective = Windows(ShardDataset(corpus), MODEL.context_tokens), Burdened(TIMES if engine.rank == slow else 1)
    loader = Loader(rows, Order(len(rows), seed=0), 4, 2, engine.rank, engine.world)
    EventLog(folder).write("rank", rank=engine.rank, node="", host=socket.gethostname(), pid=0)
    with Watched(folder, WATCH, engine, EventLog(folder) if engine.rank == 0 else SilentLog()) as watch:
        batches, counted = watch.own.counted(loader, "micro_batches"), watch.own.counted(objective, "loss")
        for step in range(STEPS):
            watch.begins("step", step + 1)
            train_step(engine, counted, batches.micro_batches(step), 1e-3, 0)
            watch.agreed(agree(engine, watch.votes(), engine.device), step + 1)
        watch.begins("end", STEPS)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
