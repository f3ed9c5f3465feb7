"""A training small enough for every test: real shards, a real decoder, the real loop."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor, nn

from foundation_core.data.loader import Loader
from foundation_core.data.order import Order
from foundation_core.data.packing import Windows
from foundation_core.data.shards import ShardDataset, ShardWriter
from foundation_core.data.units import TOKENS
from foundation_core.evaluate.likelihood import score_rows
from foundation_core.events import EventLog, read_events
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.transformer import Model
from foundation_core.objectives.base import ALONE, Example, Objective, Ranks
from foundation_core.objectives.language import NextToken
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, OptimizerSpec, TrunkSpec
from foundation_core.tracking.base import EventTracker
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import Engine, EngineFactory, EngineRequest, TorchEngine
from foundation_core.train.loop import Plan, Progress, Surroundings, train

VOCABULARY = 48
SHAPE = SampleShape(vocabulary=VOCABULARY)
MODEL = ModelSpec(trunk=TrunkSpec(width=16, depth=2, heads=2), context_tokens=12)
OPTIMIZER = OptimizerSpec(lr=3e-2, clip_norm=0.5)


def write_corpus(folder: Path, seed: int = 0) -> Path:
    """A token data set of long documents and heaps of tiny ones: some rows have many labels, and some hardly any.

    Each document counts up in steps of its own, so that there is something to learn.
    """
    draw = random.Random(seed)
    documents = []
    for number in range(240):
        length = 40 if number % 20 == 0 else draw.choice([0, 0, 1])
        first, step = draw.randrange(VOCABULARY), draw.choice([1, 2, 3])
        documents.append([1 + (first + step * place) % (VOCABULARY - 1) for place in range(length)] + [0])
    names = [f"test/{number:04d}" for number in range(len(documents))]
    rows = pa.table({"document": names, "group": [""] * len(names), "tokens": documents}, schema=TOKENS)
    with ShardWriter(folder, TOKENS, source={}, shard_size=200) as writer:
        writer.write(rows)
    return folder


def tiny_model(seed: int = 0) -> Model:
    """A decoder with weights."""
    return initialize(build(MODEL, SHAPE), seed)


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Hex digest of the bytes of all tensors, by name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def largest_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest absolute difference between two models' weights."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


class InfiniteGradient(NextToken):
    """An objective whose loss is finite and whose gradient is not: the root at zero."""

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The real loss, and nothing more that a value would show."""
        real = super().loss(model, example, ranks)
        return real + (real * 0).sqrt()


@dataclass(frozen=True)
class Trained:
    """What a training did: by step, and in the end."""

    progress: Progress
    losses: dict[int, float]
    grad_norms: dict[int, float]
    validations: dict[int, float]
    weights: dict[str, Tensor]
    best: dict[int, dict[str, Tensor]] = field(default_factory=dict)


@dataclass
class Training:
    """A training in a folder; run it again and it continues.

    Args:
        folder: where its checkpoints and events are.
        corpus: a token data set.
        engine: what learns.
        objective: what is learned.
        batch_rows: rows of a step, over all ranks.
        own_rows: whether each rank reads its own rows; if not, all read those of rank 0 (a mistake, for comparison).
        clock: what `max_seconds` is measured by.
    """

    folder: Path
    corpus: Path
    engine: EngineFactory = TorchEngine
    objective: Objective = field(default_factory=NextToken)
    steps: int = 12
    batch_rows: int = 4
    micro_batch_rows: int = 2
    precision: str = "float32"
    optimizer: OptimizerSpec = OPTIMIZER
    seed: int = 0
    validate_every_steps: int = 3
    checkpoint_every_steps: int = 5
    keep: int = 2
    own_rows: bool = True
    max_seconds: float | None = None
    max_tokens: int | None = None
    clock: Callable[[], float] = time.perf_counter

    def run(self, stop_requested: Callable[[], bool] = lambda: False) -> Trained:
        """Train to the end, or until somebody stops it."""
        engine = self._engine()
        windows = Windows(ShardDataset(self.corpus), MODEL.context_tokens)
        order = Order(len(windows), self.seed)
        share = (engine.rank if self.own_rows else 0, engine.world)
        loader = Loader(windows, order, self.batch_rows, self.micro_batch_rows, *share)
        checkpoints = self._checkpoints(engine)
        plan = Plan(
            self.steps, self.optimizer, self.seed, self.validate_every_steps, self.checkpoint_every_steps,
            self.max_seconds, self.max_tokens,
        )  # fmt: skip
        events = EventLog(self.folder / f"rank-{engine.rank}")
        best: dict[int, dict[str, Tensor]] = {}
        around = Surroundings(
            tracker=EventTracker(events),
            events=events,
            stop_requested=stop_requested,
            keep_best=lambda step: best.update({step: engine.weights()}),
            validate=lambda: score_rows(
                engine.model, self.objective, windows, torch.arange(4), torch.ones(VOCABULARY, dtype=torch.int64)
            ),
            clock=self.clock,
        )
        progress = train(engine, self.objective, loader, plan, checkpoints, around)
        logged = {name: metrics_by_step(events.path.parent, name) for name in LOGGED}
        return Trained(progress, *logged.values(), engine.weights(), best)

    def saved_weights(self) -> dict[str, Tensor]:
        """The weights of the newest checkpoint."""
        engine = self._engine()
        assert self._checkpoints(engine).restore() is not None
        return engine.weights()

    def _engine(self) -> Engine:
        return self.engine(tiny_model(), EngineRequest(self.optimizer, self.precision, self.micro_batch_rows))

    def _checkpoints(self, engine: Engine) -> Checkpoints:
        content = ShardDataset(self.corpus).content
        order = Order(len(Windows(ShardDataset(self.corpus), MODEL.context_tokens)), self.seed)
        identity = {"corpus": content, "order": order.digest(self.steps * self.batch_rows)}
        return Checkpoints(self.folder / "checkpoints", engine, identity, self.keep)


LOGGED = ("train/loss_nats", "train/grad_norm", "validation/bits_per_byte")


def metrics_by_step(folder: Path, name: str) -> dict[int, float]:
    """A metric of an event log, by step; a step that was done twice must have given the same figure twice."""
    found: dict[int, float] = {}
    for _, event in read_events(folder):
        if event["kind"] == "metrics" and name in event["values"]:
            assert found.setdefault(event["step"], event["values"][name]) == event["values"][name]
    return found
