"""A training small enough for every test: real shards, a real decoder, the real loop."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor, nn

from foundation_core.data.loading.loader import Loader, Rows
from foundation_core.data.loading.order import Order
from foundation_core.data.loading.packing import Windows
from foundation_core.data.loading.quarantine import NamedRows, Quarantine
from foundation_core.data.shards.dataset import ShardDataset, ShardWriter
from foundation_core.data.units.work import TOKENS
from foundation_core.evaluate.likelihood import score_rows
from foundation_core.events import EventLog, read_events
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.transformer import Model
from foundation_core.objectives.base import ALONE, Example, Objective, Ranks
from foundation_core.objectives.language import NextToken
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, OptimizerSpec, TrunkSpec
from foundation_core.specs.loading import Packing
from foundation_core.specs.recovery import RecoverySpec
from foundation_core.tracking.base import EventTracker
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import Engine, EngineFactory, EngineRequest, TorchEngine
from foundation_core.train.example import OutputCheck
from foundation_core.train.ledger import Ledger
from foundation_core.train.loop import Plan, Progress, Surroundings, train
from foundation_core.train.recovery import RewindError
from foundation_core.train.retention import Retention

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


EXPERTS = MODEL.model_copy(update={"family": "mixture", "trunk": MODEL.trunk.model_copy(update={"experts": 4})})
PAIRS = ModelSpec(
    family="dual_encoder", trunk=MODEL.trunk, context_tokens=MODEL.context_tokens, patch=(1, 2), joint_width=6
)


def mixture() -> nn.Module:
    """A decoder of experts with weights."""
    return initialize(build(EXPERTS, SHAPE), 0)


def dual_encoder() -> nn.Module:
    """A dual encoder of `Pairs` with weights."""
    return initialize(build(PAIRS, SampleShape(VOCABULARY, 1, 2, 4)), 0)


class Pairs:
    """Rows of values with captions that tell of them."""

    def __len__(self) -> int:
        return 40

    def gather(self, indices: Tensor) -> dict[str, Tensor]:
        """A wave for each number, and a caption of two tokens and an end."""
        values = torch.sin(indices[:, None] * torch.arange(1, 9) / 7).view(-1, 1, 2, 4)
        tokens = torch.stack([1 + indices % 7, 8 + indices % 5, torch.zeros_like(indices)], dim=1)
        return {"values": values, "tokens": tokens, "segment": torch.zeros_like(tokens)}


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
        model: makes what learns it.
        rows: what it is learned from. None: the corpus, in windows.
        batch_rows: rows of a step, over all ranks.
        own_rows: whether each rank reads its own rows; if not, all read those of rank 0 (a mistake, for comparison).
        clock: what `max_seconds` is measured by.
        recovery: what happens when a step fails.
        quarantined: documents that are hidden from the start on.
        verify_outputs: whether a model that was read from a checkpoint must say what the saved one said.
        offload_optimizer: whether the optimizer's state leaves the accelerator.
    """

    folder: Path
    corpus: Path
    engine: EngineFactory = TorchEngine
    objective: Objective = field(default_factory=NextToken)
    model: Callable[[], nn.Module] = tiny_model
    rows: Rows | None = None
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
    recovery: RecoverySpec = field(default_factory=RecoverySpec)
    quarantined: tuple[str, ...] = ()
    packing: Packing = "cut"
    verify_outputs: bool = True
    offload_optimizer: bool = False

    def run(self, stop_requested: Callable[[], bool] = lambda: False) -> Trained:
        """Train to the end, or until somebody stops it."""
        while True:
            with suppress(RewindError):
                return self._run(stop_requested)

    def windows(self) -> Windows:
        """The rows that it reads, where they are windows over texts."""
        rows = self._rows
        assert isinstance(rows, Windows)
        return rows

    def order(self) -> Order:
        """The order in which it reads them."""
        return self._order

    def ledger(self) -> Ledger | None:
        """What the training found out; None where rows have no documents."""
        rows = self._rows
        return Ledger(self.folder, rows, self._order, self.batch_rows) if isinstance(rows, NamedRows) else None

    def _run(self, stop_requested: Callable[[], bool]) -> Trained:
        engine = self._engine()
        rows, order, ledger = self._rows, self._order, self.ledger()
        share = (engine.rank if self.own_rows else 0, engine.world)
        hide = Quarantine(rows, {*self.quarantined, *ledger.documents}).hide if ledger else None
        loader = Loader(rows, order, self.batch_rows, self.micro_batch_rows, *share, hide=hide)
        checkpoints = self._checkpoints(engine)
        plan = Plan(
            self.steps, self.optimizer, self.seed, self.validate_every_steps, self.checkpoint_every_steps,
            self.max_seconds, self.max_tokens, self.recovery,
        )  # fmt: skip
        events = EventLog(self.folder / f"rank-{engine.rank}")
        best: dict[int, dict[str, Tensor]] = {}
        around = Surroundings(
            tracker=EventTracker(events),
            events=events,
            stop_requested=stop_requested,
            keep_best=lambda step: best.update({step: engine.weights()}),
            validate=lambda at_once: score_rows(
                engine.model, self.objective, rows, torch.arange(4), torch.ones(VOCABULARY, dtype=torch.int64), at_once
            ),
            validation_rows=4,
            clock=self.clock,
            ledger=ledger,
        )
        with checkpoints:
            progress = train(engine, self.objective, loader, plan, checkpoints, around)
        unit = self.objective.unit
        names = (f"train/loss_{unit}", "train/grad_norm")
        names += ("validation/bits_per_byte" if self.objective.likelihood else f"validation/loss_{unit}",)
        logged = [metrics_by_step(events.path.parent, name) for name in names]
        return Trained(progress, *logged, engine.weights(), best)

    def saved_weights(self) -> dict[str, Tensor]:
        """The weights of the newest checkpoint."""
        engine = self._engine()
        with self._checkpoints(engine) as checkpoints:
            assert checkpoints.restore() is not None
        return engine.weights()

    @property
    def _rows(self) -> Rows:
        return self.rows or Windows(ShardDataset(self.corpus), MODEL.context_tokens, self.packing)

    @property
    def _order(self) -> Order:
        return Order(len(self._rows), self.seed)

    def _engine(self) -> Engine:
        request = EngineRequest(self.optimizer, self.precision, self.micro_batch_rows, self.offload_optimizer)
        return self.engine(self.model(), request)

    def _checkpoints(self, engine: Engine) -> Checkpoints:
        content = ShardDataset(self.corpus).content
        identity = {"corpus": content, "order": self._order.digest(self.steps * self.batch_rows)}
        row = self._rows.gather(torch.zeros(1, dtype=torch.int64))
        check = OutputCheck(engine, self.objective, row, self.precision) if self.verify_outputs else None
        return Checkpoints(self.folder / "checkpoints", engine, identity, Retention(self.keep), check=check)


def metrics_by_step(folder: Path, name: str) -> dict[int, float]:
    """A metric of an event log, by step; a step that was done twice must have given the same figure twice.

    Those of a branch that was gone back from are not of the training that is told of.
    """
    found: dict[int, float] = {}
    for _, event in read_events(folder):
        if event["kind"] == "failure" and "rewind_to" in event:
            found = {step: value for step, value in found.items() if step <= event["rewind_to"]}
        if event["kind"] == "metrics" and name in event["values"]:
            assert found.setdefault(event["step"], event["values"][name]) == event["values"][name]
    return found
