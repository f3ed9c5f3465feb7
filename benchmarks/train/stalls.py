"""What saving costs a training: seconds with a save each five steps, with none, and with one that it waits for.

    two real DeepSpeed ranks (ZeRO 1), one model each     rounds x [ no saves | ours | synchronous ] x steps

All three take turns in the same processes. `ours` is what the product does: the state copied, outputs of the example
asked, a thread that writes, hashes and flushes, votes each step, a commit, old ones pruned. `synchronous` is the plain
way: each rank writes its part with safetensors' own writer, flushes it to the disk and waits for the others. A block
begins with a save, so that what is written beside the training is written within it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.train.rival import WARM_UP_STEPS, Shape
from cluster.deepspeed_engine import engine_factory
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.language import NextToken
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, OptimizerSpec, TrunkSpec
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import Engine, EngineRequest
from foundation_core.train.example import OutputCheck
from foundation_core.train.retention import Retention
from foundation_core.train.step import train_step
from foundation_core.train.votes import agree
from foundation_core.train.writer import fsync

BAR_STALL, BAR_RATIO, EVERY_STEPS = 0.01, 0.25, 5
SIDES = ("none", "ours", "synchronous")
Block = dict[str, float]


class Said(NamedTuple):
    """What the ranks measured.

    Args:
        blocks: seconds of each round's blocks by side.
        call_seconds: of each call of `Checkpoints.save`, which the training waits for.
        rank_bytes: that rank 0 writes for a checkpoint.
    """

    blocks: list[Block]
    call_seconds: list[float]
    rank_bytes: int


def measure(rounds: int, shape: Shape, ranks: int = 2) -> Said:
    """Start the ranks, and hear what rank 0 measured."""
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="train-stalls-", dir=Path.cwd()) as folder:
        free.bind(("127.0.0.1", 0))
        rendezvous = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free.getsockname()[1]),
            "WORLD_SIZE": str(ranks),
            "LOCAL_SIZE": str(ranks),
        }
        free.close()
        mine = {"threads": shape.threads // ranks, "precision": shape.precision}
        given = json.dumps({"rounds": rounds, "steps": shape.steps, **mine})
        command = [sys.executable, "-m", "benchmarks.train.stalls", folder, given]
        started = [
            subprocess.Popen(command, env={**os.environ, **rendezvous, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(ranks)
        ]
        codes = [process.wait() for process in started]
        if any(codes):
            raise SystemExit(f"the ranks ended with {codes}")
        return Said(**json.loads((Path(folder) / "said.json").read_text()))


def report(said: Said) -> int:
    """Print what the training waited for, and the bars; the number that were missed."""
    stall = {side: [block[side] / block["none"] - 1 for block in said.blocks] for side in ("ours", "synchronous")}
    calls = sorted(said.call_seconds)
    print(f"a rank writes {said.rank_bytes / 1e6:.0f} MB; a save each {EVERY_STEPS} steps, {len(said.blocks)} rounds")
    print(f"no saves: {median(block['none'] for block in said.blocks):.2f} s a block")
    print(f"a call of save: {1e3 * median(calls):.0f} ms in the middle, {1e3 * calls[-1]:.0f} ms at the most")
    for side, found in stall.items():
        print(f"stalled, {side:<12} {median(found):7.2%}   each: {', '.join(f'{one:.2%}' for one in found)}")
    ours, theirs = median(stall["ours"]), median(stall["synchronous"])
    missed = 0
    for name, value, bar in (
        ("stalled by saves", ours, BAR_STALL),
        ("of a synchronous save", ours / theirs, BAR_RATIO),
    ):
        good = value <= bar
        missed += not good
        print(f"{name:<24} {value:7.4f} (bar {bar:g}) {'met' if good else 'MISSED'}")
    return missed


def _rank(folder: Path, rounds: int, steps: int, threads: int, precision: str) -> Said:
    """One rank's part of all rounds."""
    torch.set_num_threads(threads)
    dist.init_process_group("gloo")
    shape = Shape()
    trunk = TrunkSpec(width=shape.width, depth=shape.depth, heads=shape.heads)
    model = build(ModelSpec(trunk=trunk, context_tokens=shape.context_tokens), SampleShape(vocabulary=shape.vocabulary))
    rows = shape.batch_rows // dist.get_world_size()
    engine = engine_factory("deepspeed", 1)(initialize(model, 0), EngineRequest(OptimizerSpec(), precision, rows))
    check = OutputCheck(engine, NextToken(), _row(1, shape), precision)
    calls: list[float] = []
    numbers = count(1)
    with Checkpoints(folder / "ours", engine, {}, Retention(2), check=check) as checkpoints:

        def none(step: int) -> None:
            agree(engine, {"stop": 0.0}, engine.device)

        def ours(step: int) -> None:
            checkpoints.hear(agree(engine, {"stop": 0.0} | checkpoints.votes(), engine.device))
            if step % EVERY_STEPS == 0:
                start = time.perf_counter()
                checkpoints.save(next(numbers), {})
                calls.append(time.perf_counter() - start)

        def synchronous(step: int) -> None:
            agree(engine, {"stop": 0.0}, engine.device)
            if step % EVERY_STEPS == 0:
                _save_plainly(engine, folder / "plain")

        sides = dict(zip(SIDES, (none, ours, synchronous), strict=True))
        for after_step in (none, *sides.values()):  # nothing is measured that is done for the first time
            _block(engine, shape, rows, WARM_UP_STEPS, after_step)
            checkpoints.finish()
        calls.clear()
        blocks = []
        for number in range(rounds):
            order = SIDES[number % 3 :] + SIDES[: number % 3]
            found = {}
            for side in order:
                found[side] = _block(engine, shape, rows, steps, sides[side])
                checkpoints.finish()
            blocks.append({side: found[side] for side in SIDES})
    size = next((folder / "ours").glob("step-*/rank-00000.safetensors")).stat().st_size
    dist.barrier()
    return Said(blocks, calls, size)


def _block(engine: Engine, shape: Shape, rows: int, steps: int, after_step: Callable[[int], None]) -> float:
    """Seconds of so many steps, from where all ranks begin to where all are done."""
    engine.barrier()
    start = time.perf_counter()
    for step in range(steps):
        after_step(step)
        engine.model.train()
        train_step(engine, NextToken(), [_row(rows, shape)], 1e-4, seed=0)
    engine.barrier()
    return time.perf_counter() - start


def _save_plainly(engine: Engine, folder: Path) -> None:
    """Write this rank's state, flush it, and wait for the others."""
    folder.mkdir(exist_ok=True)
    path = folder / f"rank-{engine.rank}.safetensors"
    tensors = {f"{one.name}/{one.kind}/{one.start}": one.values.detach().clone() for one in engine.fragments()}
    save_file(tensors, path)
    fsync(path)
    engine.barrier()


def _row(rows: int, shape: Shape) -> dict[str, Tensor]:
    """Rows of random tokens: what they are costs a step nothing."""
    tokens = torch.randint(shape.vocabulary, (rows, shape.context_tokens + 1))
    position = torch.arange(shape.context_tokens + 1).expand_as(tokens)
    return {"tokens": tokens, "segment": torch.zeros_like(tokens), "position": position, "sample": torch.arange(rows)}


if __name__ == "__main__":
    out = Path(sys.argv[1])
    measured = _rank(out, **json.loads(sys.argv[2]))
    if dist.get_rank() == 0:
        (out / "said.json").write_text(json.dumps(measured._asdict()))
    dist.destroy_process_group()
