"""The measured training: made-up documents in packed rows, the plain engine, compiled blocks.

documents --ShardWriter--> shards --Windows, Order, Loader--> rows --train_step(TorchEngine)--> tokens a second
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pyarrow as pa
import torch
from torch import Tensor, nn

from benchmarks.gpu.packed import WAYS, read_packed, works
from foundation_core.alone import alone
from foundation_core.cost.memory import memory_of
from foundation_core.cost.size import Size, size_of, training_flops
from foundation_core.data.loading.loader import Loader
from foundation_core.data.loading.order import Order
from foundation_core.data.loading.packing import Windows
from foundation_core.data.loading.prefetch import Prefetched
from foundation_core.data.shards.dataset import ShardDataset, ShardWriter
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import Layout
from foundation_core.model.transformer import Finish
from foundation_core.objectives.base import ALONE, IGNORE, Example, Ranks
from foundation_core.objectives.language import NextToken
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, OptimizerSpec, PretrainSpec, TrunkSpec
from foundation_core.train.engine import EngineRequest
from foundation_core.train.step import train_step

TOKENS = pa.schema({"document": pa.string(), "group": pa.string(), "tokens": pa.large_list(pa.int32())})
"""Columns of a data set of tokens; `foundation_core.data.units.work` has them too, and imports tokenizers."""
FILLED_FRACTION = 0.8
"""Of the card's memory, what the forecast may take: it knows nothing of fragments and workspaces."""
SCORED_TOKENS = 8192
"""Tokens whose logits are made at a time."""


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Args:
        document_tokens: of a document, in the mean.
    """

    width: int = 1024
    depth: int = 24
    heads: int = 16
    vocabulary: int = 50_304
    context_tokens: int = 2048
    document_tokens: int = 700

    @property
    def model(self) -> ModelSpec:
        """As a recipe has it."""
        trunk = TrunkSpec(width=self.width, depth=self.depth, heads=self.heads)
        return ModelSpec(trunk=trunk, context_tokens=self.context_tokens)

    @property
    def size(self) -> Size:
        """Its counts."""
        return size_of(self.model, SampleShape(vocabulary=self.vocabulary))


TINY = Setting(width=64, depth=2, heads=2, vocabulary=512, context_tokens=128, document_tokens=40)
"""What a machine without a GPU runs, to show that everything does."""


@dataclass(frozen=True)
class Measured:
    """What was found.

    Args:
        way: how packed rows were read.
        refused: why better ways were not taken.
        step_seconds: the median.
        losses: of the first step and of the last.
    """

    way: str
    refused: dict[str, str]
    compiled: bool
    rows: int
    step_seconds: float
    tokens_per_second: float
    flops_per_second: float
    peak_memory_bytes: int
    losses: tuple[float, float]


class PieceWise(NextToken):
    """Next token, with head and loss of a piece as one function: shapes stay the same, so that it can be compiled."""

    def __init__(self, nats: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self._nats = nats

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """float32 scalar: the sum of -log p(label), in nats."""
        loss: Tensor = model(**example.inputs, finish=self._finish(example.labels))
        return loss

    def _finish(self, labels_BT: Tensor) -> Finish:
        def summed(head: nn.Module, x_BTD: Tensor, layout: Layout) -> Tensor:
            pieces = zip(
                x_BTD.flatten(0, 1).split(SCORED_TOKENS), labels_BT.flatten().split(SCORED_TOKENS), strict=True
            )
            return torch.stack([self._nats(x, head.weight, labels) for x, labels in pieces]).sum()

        return summed


def nats(x_ND: Tensor, weight_VD: Tensor, labels_N: Tensor) -> Tensor:
    """The sum of -log p(label) of a piece."""
    logits = nn.functional.linear(x_ND, weight_VD)
    return nn.functional.cross_entropy(logits.float(), labels_N, ignore_index=IGNORE, reduction="sum")


def measure(setting: Setting, device: torch.device, folder: Path, *, compiled: bool, seconds: float) -> Measured:
    """Train on a card for so long, and count."""
    torch.set_float32_matmul_precision("high")
    way, refused = _chosen_way(device)
    windows = write(folder, setting)
    rows = fitting_rows(setting, _memory_bytes(device), fused=way != "mask")
    while True:
        try:
            return _train(setting, windows, device, rows, way, refused, compiled, seconds)
        except torch.cuda.OutOfMemoryError:
            if rows == 1:
                raise
            rows = max(1, rows // 2)
            torch.cuda.empty_cache()


def fitting_rows(setting: Setting, memory_bytes: int, *, fused: bool) -> int:
    """The largest micro-batch that the forecast puts into the memory: a power of two, or half as much more."""
    candidates = sorted({2**power * part // 2 for power in range(8) for part in (2, 3)} - {0}, reverse=True)
    for rows in candidates:
        body = {"model": setting.model, "batch_rows": rows, "micro_batch_rows": rows, "workers": 1, "engine": "torch"}
        spec = PretrainSpec.model_validate({**body, "precision": "bf16"})
        needed = memory_of(spec, setting.size, setting.vocabulary, setting.context_tokens, fused_attention=fused)
        if needed.total <= FILLED_FRACTION * memory_bytes:
            return rows
    return 1


def write(folder: Path, setting: Setting) -> Windows:
    """Documents of unequal lengths, in rows."""
    draw = torch.Generator().manual_seed(0)
    count = 400 * setting.context_tokens // setting.document_tokens
    lengths = torch.empty(count).log_normal_(0.0, 1.0, generator=draw).mul(0.6 * setting.document_tokens)
    lengths = lengths.long().clamp(2, 8 * setting.document_tokens)
    tokens = torch.randint(1, setting.vocabulary, (int(lengths.sum()),), dtype=torch.int32, generator=draw)
    documents = [piece.tolist() for piece in tokens.split(lengths.tolist())]
    names = [f"bench/{number:06d}" for number in range(count)]
    with ShardWriter(folder, TOKENS, source={}, shard_size=10**9) as writer:
        writer.write(pa.table({"document": names, "group": [""] * count, "tokens": documents}, schema=TOKENS))
    return Windows(ShardDataset(folder), setting.context_tokens)


def _chosen_way(device: torch.device) -> tuple[str, dict[str, str]]:
    refused = dict[str, str]()
    for way in WAYS if device.type == "cuda" else ():
        why = works(way, device)
        if not why:
            return way, refused
        refused[way] = why
    return "mask", refused


def _train(
    setting: Setting, windows: Windows, device: torch.device, rows: int, way: str, refused: dict[str, str],
    compiled: bool, seconds: float,
) -> Measured:  # fmt: skip
    context = alone(windows.dataset.folder)
    model = build(setting.model, SampleShape(vocabulary=setting.vocabulary))
    initialize(model, seed=0)
    model.to(device)
    if way != "mask":
        read_packed(model, WAYS[way])
    if compiled:
        for block in model.trunk.blocks:  # blocks are alike: one is compiled for all
            block.compile()
    objective = PieceWise(torch.compile(nats) if compiled else nats)
    engine = context.engine(model, EngineRequest(OptimizerSpec(lr=3e-4), "bf16", rows))
    loader = Loader(windows, Order(len(windows), seed=0), rows, rows)
    losses, times = list[float](), list[float]()
    with Prefetched(loader, 2) as batches:
        for step, timed in enumerate(_steps(seconds)):
            start = time.perf_counter()
            losses.append(train_step(engine, objective, batches.micro_batches(step), 3e-4, 0).loss)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times += [time.perf_counter() - start] if timed else []
    tokens = rows * setting.context_tokens / median(times)
    return Measured(
        way, refused, compiled, rows, median(times), tokens,
        tokens * training_flops(setting.size, setting.context_tokens),
        torch.cuda.max_memory_allocated() if device.type == "cuda" else 0, (losses[0], losses[-1]),
    )  # fmt: skip


def _steps(seconds: float) -> Iterator[bool]:
    """Whether each step is timed: five that warm up and compile, then at least five, until the time is over."""
    for _ in range(5):
        yield False
    end, count = time.perf_counter() + seconds, 0
    while count < 5 or (time.perf_counter() < end and count < 200):
        count += 1
        yield True


def _memory_bytes(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 5 * 10**7
