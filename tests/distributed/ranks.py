"""One rank of the trainings that this folder's tests compare: `python -m tests.distributed.ranks CORPUS OUT PART`.

PART is fast, slow (what takes minutes, or needs a compiler) or alone (one rank goes on where two of `slow` stopped).

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which rank this is. A process does all of the trainings, because
starting it takes longer than they do. Rank 0 writes the outcome of each to OUT/<name>.pt.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cluster.deepspeed_engine import DeepSpeedEngine, engine_factory
from foundation_core.errors import DivergedError, Stopped
from foundation_core.objectives.base import ALONE, Example, Ranks
from foundation_core.objectives.experts import BalancedNextToken
from foundation_core.objectives.pairs import Contrastive
from foundation_core.specs import OptimizerSpec
from foundation_core.train.data_parallel import DataParallelEngine
from foundation_core.train.engine import Engine, EngineFactory
from tests.distributed import elastic
from tests.support.training import (
    InfiniteGradient,
    Pairs,
    Trained,
    Training,
    dual_encoder,
    largest_difference,
    mixture,
)

ENGINES: dict[str, EngineFactory] = {f"zero-{stage}": engine_factory("deepspeed", stage) for stage in range(4)}
ENGINES["torch"] = DataParallelEngine
JOINT: dict[str, dict[str, Any]] = {
    "experts": {"objective": BalancedNextToken(), "model": mixture, "micro_batch_rows": 4},
    "pairs": {
        "objective": Contrastive(), "model": dual_encoder, "rows": Pairs(), "optimizer": OptimizerSpec(lr=3e-3),
        "batch_rows": 7, "micro_batch_rows": 7,
    },
}  # fmt: skip
"""Objectives that are no sum over rows; 7 pairs are 4 of one rank and 3 of the other."""
LONG_STEPS = 30


class OwnCount(DeepSpeedEngine):
    """A mistake, for comparison: each rank divides its loss by its own labels, so that the mean is one of means."""

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """The sum; of counts, what it would be if every rank had this rank's."""
        return value * self.world if value.dtype == torch.int64 else super().sum_over_ranks(value)


class Apart(Contrastive):
    """A mistake, for comparison: each rank tells its own pairs apart and not those of the others."""

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The loss among one's own rows."""
        return super().loss(model, example, ALONE)


class Unscaled(DeepSpeedEngine):
    """A mistake, for comparison: the gradient is the ranks' mean and not their sum."""

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate too little."""
        super().backward(loss / self.world, last=last)


def outcome(trained: Trained) -> dict[str, Any]:
    """What is compared of a training."""
    body = asdict(trained)
    return {name: body[name] for name in ("losses", "grad_norms", "validations", "weights")}


def stop_at(step: int) -> Callable[[], bool]:
    """A stop signal that rank 1 alone hears."""
    asked = 0

    def requested() -> bool:
        nonlocal asked
        asked += 1
        return asked == step and dist.get_rank() == 1

    return requested


def interrupted(training: Training, step: int) -> Trained:
    """The outcome of a training that is stopped after a step and then continued by a new engine."""
    try:
        training.run(stop_at(step))
    except Stopped:
        return training.run()
    raise AssertionError("rank 1 asked for a stop and the ranks did not agree on it")


def diverged(training: Training) -> dict[str, Any]:
    """How a gradient that is not finite ends on this rank, and how far the weights moved from the last checkpoint."""
    engines: list[Engine] = []
    build = training.engine

    def remembered(*arguments: Any) -> Engine:
        engines.append(build(*arguments))
        return engines[-1]

    with contextlib.suppress(Stopped):
        training.run(stop_at(2))
    training.engine, training.objective = remembered, InfiniteGradient()
    try:
        training.run()
    except DivergedError as error:
        return {"error": error.found, "moved": largest_difference(engines[0].weights(), training.saved_weights())}
    raise AssertionError("it did not diverge")


def unequal_clock() -> Callable[[], float]:
    """A clock that moves whenever it is read: a second on rank 0, a hundred on rank 1."""
    seconds = count(step=1 + 99 * dist.get_rank())
    return lambda: float(next(seconds))


def ended(training: Training) -> dict[str, Any]:
    """After which step a budget ended this rank's training, and which budget."""
    progress = training.run().progress
    return {"step": progress.step, "ended_by": progress.ended_by}


def main(corpus: Path, out: Path, part: str) -> None:
    """Do every training of a part."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    run = partial(Training, corpus=corpus)

    def write(name: str, body: dict[str, Any]) -> None:
        if dist.get_rank() == 0:
            torch.save(body, out / f"{name}.pt")

    if part == "fast":
        fast(run, out, write)
        found = elastic.of_kinds(run, out, ENGINES, elastic.FAST)
    elif part == "slow":
        elastic.left(run, out, ENGINES)
        found = elastic.of_kinds(run, out, ENGINES, elastic.SLOW)
    else:
        found = elastic.taken_over(run, out, ENGINES)
    for name, body in found:
        write(name, body)
    dist.barrier()
    dist.destroy_process_group()


def fast(run: Callable[..., Training], out: Path, write: Callable[[str, dict[str, Any]], None]) -> None:
    """Trainings of AdamW, and joint objectives."""
    for name, engine in ENGINES.items():
        write(f"even-{name}", outcome(run(out / f"even-{name}", engine=engine).run()))
        uneven = run(out / f"uneven-{name}", engine=engine, batch_rows=5)
        write(f"uneven-{name}", outcome(uneven.run()))
        again = run(out / f"resumed-{name}", engine=engine, batch_rows=5)
        write(f"resumed-{name}", outcome(interrupted(again, step=4)))
        verdicts: list[Any] = [None, None]
        dist.all_gather_object(verdicts, diverged(run(out / f"diverged-{name}", engine=engine)))
        write(f"diverged-{name}", {"ranks": verdicts})
    for name, joint in JOINT.items():
        for kind, engine in {"deepspeed": DeepSpeedEngine, "torch": DataParallelEngine}.items():
            write(f"{name}-{kind}", outcome(run(out / f"{name}-{kind}", engine=engine, **joint).run()))
    apart = {**JOINT["pairs"], "objective": Apart()}
    write("apart", outcome(run(out / "apart", engine=DeepSpeedEngine, **apart).run()))
    for name, budget in {"seconds": {"max_seconds": 4.0}, "tokens": {"max_tokens": 80}}.items():
        training = run(out / name, engine=DeepSpeedEngine, clock=unequal_clock(), **budget)
        ends: list[Any] = [None, None]
        dist.all_gather_object(ends, ended(training))
        write(name, {"ranks": ends})
    for name, wrong in {"own-count": OwnCount, "unscaled": Unscaled}.items():
        write(name, outcome(run(out / name, engine=wrong, batch_rows=5).run()))
    write("same-rows", outcome(run(out / "same-rows", engine=DeepSpeedEngine, own_rows=False).run()))
    for zero in (1, 3):
        name, engine = f"bf16-{zero}", engine_factory("deepspeed", zero)
        gentle = OptimizerSpec(lr=2e-2)
        training = run(out / name, engine=engine, precision="bf16", steps=LONG_STEPS, optimizer=gentle)
        write(name, outcome(training.run()))
    for name, body in elastic.trainings(run, out, ENGINES):
        write(name, body)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
