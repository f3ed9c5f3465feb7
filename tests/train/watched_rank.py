"""A rank that a watchdog watches: `python -m tests.train.watched_rank FOLDER RANK WORLD FAULT FAULTY_RANK`.

Ranks meet in a real gloo group and add something up in each step. From step 5 on the faulty rank does what its fault
says: `stopped` stops its process, `lock` calls C that never gives Python's lock back, `loop` computes for ever,
`slow` takes half a second a step, which is no hang.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from foundation_core.specs.watch import WatchSpec
from foundation_core.train.watchdog import Watchdog

SPEC = WatchSpec(hang_seconds=2.0, hang_medians=4.0, first_seconds=8.0)
STEPS, FAULTY_STEP = 8, 5


def misbehave(fault: str) -> None:
    """What a faulty rank does."""
    if fault == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault == "lock":
        ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the lock
    elif fault == "loop":
        while True:
            pass
    elif fault == "slow":
        time.sleep(0.5)


def main(folder: Path, rank: int, world: int, fault: str, faulty_rank: int) -> None:
    """Take the steps."""
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(minutes=5))
    dist.all_reduce(torch.ones(1))
    with Watchdog(folder, SPEC, rank, world, "first") as watchdog:
        for step in range(1, STEPS + 1):
            watchdog.begins("step", step)
            if rank == faulty_rank and step >= FAULTY_STEP:
                misbehave(fault)
            dist.all_reduce(torch.ones(1))
        watchdog.begins("end", STEPS)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
