"""Trainings that change their number of ranks or their engine on the way, or lose a step; for `ranks.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch.distributed as dist
from torch import nn

from foundation_core.data.loading.loader import Loader, on_device
from foundation_core.data.loading.order import Order
from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.errors import DivergedError, Stopped
from foundation_core.objectives.language import NextToken
from foundation_core.specs import OptimizerSpec
from foundation_core.train.engine import Engine, EngineFactory, EngineRequest, TorchEngine
from foundation_core.train.schedule import lr_at
from foundation_core.train.step import train_step
from foundation_core.weights import weights_hash
from tests.support.training import MODEL, InfiniteGradient, Trained, Training, tiny_model

SIXTY: dict[str, Any] = {
    "steps": 60, "optimizer": OptimizerSpec(lr=1e-2), "validate_every_steps": 60, "checkpoint_every_steps": 60,
}  # fmt: skip
"""Long enough for 50 steps after the last change."""
KINDS: Mapping[str, dict[str, Any]] = {
    "muon": {"optimizer": OptimizerSpec(kind="muon", lr=1e-2)},
    "bf16": {"precision": "bf16"},
    "offload": {"offload_optimizer": True},
    "cpu_adam": {"optimizer": OptimizerSpec(kind="cpu_adam", lr=1e-2)},
}
"""What is not AdamW in float32, which all engines are tried with."""
FAST = {"muon": ("torch", "zero-0"), "bf16": ("zero-1",), "offload": ("zero-1",)}
SLOW = {
    "bf16": ("torch", "zero-0", "zero-2", "zero-3"),
    "offload": ("zero-2", "zero-3"),
    "cpu_adam": ("zero-0", "zero-1", "zero-2", "zero-3"),
}
LEFT = ("zero-1", "zero-3")
"""Engines whose two ranks stop for good after a leg: one rank of the same goes on, in a process of its own."""
LEG_STEPS = 5
FAULTY_STEPS, FAULTY_ROWS = 6, 8


def trainings(
    run: Callable[..., Training], out: Path, engines: Mapping[str, EngineFactory]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The outcome of each, by name; every rank does all."""
    corpus = run(out).corpus
    for name, engine in engines.items():
        there_and_back = run(out / f"elastic-{name}", **SIXTY)
        yield f"elastic-{name}", _outcome(_relay(there_and_back, [engine, TorchEngine, engine]))
        yield f"cover-{name}", _cover(engine, corpus)
        for precision in ("float32", "bf16"):
            yield f"faulty-{precision}-{name}", _with_and_without_faults(engine, precision, corpus)
        short = partial(run, engine=engine, precision="bf16", checkpoint_every_steps=50)
        yield f"whole-bf16-{name}", _outcome(short(out / f"whole-bf16-{name}").run())
        yield f"resumed-bf16-{name}", _outcome(_relay(short(out / f"resumed-bf16-{name}"), [engine, engine]))
    wander = run(out / "wander", **SIXTY)
    names = ("zero-3", "alone", "zero-1", "torch", "zero-2")
    yield "wander", _outcome(_relay(wander, [engines.get(name, TorchEngine) for name in names]))
    for precision in ("float32", "bf16"):
        yield f"hashes-{precision}", _hashes(run(out / f"hashes-{precision}", precision=precision), engines)


def of_kinds(
    run: Callable[..., Training], out: Path, engines: Mapping[str, EngineFactory], tried: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The outcome of two ranks, then one, then two, for kinds of `KINDS` and engines."""
    for kind, names in tried.items():
        for name in names:
            training = run(out / f"elastic-{kind}-{name}", **{**SIXTY, **KINDS[kind]})
            yield f"elastic-{kind}-{name}", _outcome(_relay(training, [engines[name], TorchEngine, engines[name]]))


def left(run: Callable[..., Training], out: Path, engines: Mapping[str, EngineFactory]) -> None:
    """The first leg of trainings that others will end."""
    for name in LEFT:
        with suppress(Stopped):
            run(out / f"left-{name}", **SIXTY, engine=engines[name]).run(_stop_after(LEG_STEPS))
            raise AssertionError("it was not stopped")


def taken_over(
    run: Callable[..., Training], out: Path, engines: Mapping[str, EngineFactory]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What became of them."""
    for name in LEFT:
        yield f"left-{name}", _outcome(run(out / f"left-{name}", **SIXTY, engine=engines[name]).run())


def _alone(module: nn.Module, request: EngineRequest) -> Engine:
    """Rank 0 alone, which knows of no others; DeepSpeed's AdamW is torch's there, and nothing is offloaded."""
    if request.optimizer.kind == "cpu_adam":
        request = replace(request, optimizer=request.optimizer.model_copy(update={"kind": "adamw"}))
    with patch.object(dist, "is_initialized", return_value=False):  # Muon would share its work out
        return TorchEngine(module, request)


def _outcome(trained: Trained) -> dict[str, Any]:
    return {"losses": trained.losses, "grad_norms": trained.grad_norms, "hash": weights_hash(trained.weights)}


def _stop_after(steps: int) -> Callable[[], bool]:
    """A stop signal that comes after so many steps of this try."""
    asked = 0

    def requested() -> bool:
        nonlocal asked
        asked += 1
        return asked == steps

    return requested


def _relay(training: Training, engines: list[EngineFactory]) -> Trained:
    """Each engine does five steps, saves and leaves; the last one goes on to the end. `TorchEngine` is rank 0 alone."""
    for engine in engines[:-1]:
        training.engine = _alone if engine is TorchEngine else engine
        if engine is not TorchEngine or dist.get_rank() == 0:
            with suppress(Stopped):
                training.run(_stop_after(LEG_STEPS))
                raise AssertionError("it was not stopped")
        dist.barrier()
    training.engine = engines[-1]
    return training.run()


def _cover(factory: EngineFactory, corpus: Path) -> dict[str, Any]:
    """The fragments of all ranks, without their values, after two steps."""
    engine = factory(tiny_model(), EngineRequest(OptimizerSpec(), micro_batch_rows=2))
    for step in range(2):
        train_step(engine, NextToken(), _loader(corpus, engine).micro_batches(step), 1e-3, 0)
    mine = [(part.name, part.kind, part.start, part.values.numel(), part.shape) for part in engine.fragments()]
    parts: list[Any] = [None] * engine.world
    dist.all_gather_object(parts, mine)
    return {"parts": parts}


def _loader(corpus: Path, engine: Engine) -> Loader:
    rows = Windows(ShardDataset(corpus), MODEL.context_tokens)
    return Loader(rows, Order(len(rows), seed=0), FAULTY_ROWS, 2, engine.rank, engine.world)


def _with_and_without_faults(factory: EngineFactory, precision: str, corpus: Path) -> dict[str, Any]:
    """What a training and one that lost three steps on the way and did them again gave, by step."""
    spec = OptimizerSpec(lr=2e-2)
    found = {}
    for name in ("smooth", "faulty"):
        engine = factory(tiny_model(), EngineRequest(spec, precision, micro_batch_rows=2))
        born = {"hash": weights_hash(engine.weights()), "kinds": sorted({part.kind for part in engine.fragments()})}
        loader = _loader(corpus, engine)
        steps, moved = [], []
        for step in range(FAULTY_STEPS):
            if name == "faulty":
                before = weights_hash(engine.weights())
                _fault(engine, loader, step)
                moved.append(weights_hash(engine.weights()) != before)
            report = train_step(engine, NextToken(), loader.micro_batches(step), lr_at(step, 9, spec), 0)
            steps.append((report.loss, report.grad_norm))
        found[name] = {"born": born, "steps": steps, "moved": moved, "hash": weights_hash(engine.weights())}
    return found


def _fault(engine: Engine, loader: Loader, step: int) -> None:
    """Step 2 has an infinite gradient; of step 3 the first half is made and of step 4 all, and both are discarded."""
    batches, objective = loader.micro_batches(step), NextToken()
    if step == 2:
        with suppress(DivergedError):
            train_step(engine, InfiniteGradient(), batches, 1.0, 0)
            raise AssertionError("it did not diverge")
    if step in (3, 4):
        kept = batches[: len(batches) // 2] if step == 3 else batches
        for number, batch in enumerate(kept, start=1):
            example = objective.prepare(on_device(batch, engine.device), 0)
            engine.backward(objective.loss(engine.model, example, engine), last=number == len(batches))
        engine.discard()


def _hashes(training: Training, engines: Mapping[str, EngineFactory]) -> dict[str, Any]:
    """The hash of the model that one saved, and of what every engine makes of it."""
    training.engine = engines["zero-3"]
    with suppress(Stopped):
        training.run(_stop_after(LEG_STEPS))
    found = {}
    for name, engine in engines.items():
        found[name] = weights_hash(replace(training, engine=engine).saved_weights())
    alone = replace(training, engine=TorchEngine)
    found["alone"] = weights_hash(alone.saved_weights()) if dist.get_rank() == 0 else ""
    dist.barrier()
    return found
