"""One rank of the measured trainings: `python -m benchmarks.forecast.ranks CASES OUT`.

    case --> model, engine --> a step:  forward | saved tensors   backward | live tensors   update | live tensors

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which rank this is. A process does every case: to start it takes
longer than they do. Each rank writes what it measured to OUT/rank-<rank>.json.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from cluster.deepspeed_engine import engine_factory
from foundation_core.cost.memory import REDUCED_AT_A_TIME
from foundation_core.evaluate.speed import matmul_flops_per_second
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.language import NextToken
from foundation_core.shape import SampleShape
from foundation_core.specs import PretrainSpec
from foundation_core.train.engine import Engine, EngineRequest
from foundation_core.train.step import train_step

WARM_UP_STEPS = 2
DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}


class Case(NamedTuple):
    """A training that is measured.

    Args:
        spec: as JSON; its workers are the ranks there are, and every rank has one micro-batch.
        steps: that are timed. 0: memory is measured in place of time.
    """

    spec: str
    vocabulary: int
    steps: int


def measure(case: Case) -> dict[str, Any]:
    """What a training of this rank held, in bytes, or took, in seconds.

    Returns:
        Of memory: `backward`, live bytes when gradients are there; `rest`, those between two steps; `saved`, what the
        forward pass kept for the backward pass beside parameters; `pss`, by how much the process had grown, shared
        pages divided among their owners. Of time: `seconds` of each step.
    """
    spec = PretrainSpec.model_validate_json(case.spec)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else the next case would find the pages of the last one, and take none
    known, pss = _live_storages(), _pss_bytes()
    torch.manual_seed(0)
    model = build(spec.model, SampleShape(vocabulary=case.vocabulary))
    initialize(model, 0)
    request = EngineRequest(spec.optimizer, spec.precision, spec.micro_batch_rows)
    engine = Probe(engine_factory(spec.engine, spec.zero_stage)(model, request), set(known), pss)
    batch = _batch(spec, case.vocabulary)
    if case.steps:
        return {"seconds": [_timed(engine, batch) for _ in range(WARM_UP_STEPS + case.steps)][WARM_UP_STEPS:]}
    train_step(engine, NextToken(), [batch], 1e-3, 0)  # the optimizer makes its state
    with _saved_tensors(engine.engine, engine.seen):
        train_step(engine, NextToken(), [batch], 1e-3, 0)
    return {name: engine.seen[name] for name in ("backward", "rest", "saved", "pss")}


def _timed(engine: Engine, batch: Mapping[str, Tensor]) -> float:
    engine.barrier()
    start = time.perf_counter()
    train_step(engine, NextToken(), [batch], 1e-3, 0)
    engine.barrier()
    return time.perf_counter() - start


class Probe:
    """An engine that looks at memory where a step holds most of it; else it is the engine."""

    def __init__(self, engine: Engine, known: set[int], pss: int) -> None:
        self.engine, self.known, self.pss = engine, known, pss
        self.seen = {"backward": 0, "rest": 0, "saved": 0, "pss": 0}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """The engine's, between two looks."""
        self._look_at_pages()
        self.engine.backward(loss, last=last)
        self._look_at_pages()
        self.seen["backward"] = self._live_bytes()

    def step(self, lr: float) -> float:
        """The engine's, with a look behind it."""
        norm = self.engine.step(lr)
        self._look_at_pages()
        self.seen["rest"] = self._live_bytes()
        return norm

    def _look_at_pages(self) -> None:
        self.seen["pss"] = max(self.seen["pss"], _pss_bytes() - self.pss)

    def _live_bytes(self) -> int:
        """Of all tensors since the engine was made, but for DeepSpeed's empty bucket: its pages are taken when used."""
        live = {address: size for address, size in _live_storages().items() if address not in self.known}
        return sum(size for size in live.values() if size not in (2 * REDUCED_AT_A_TIME, 4 * REDUCED_AT_A_TIME))


@contextmanager
def _saved_tensors(engine: Engine, seen: dict[str, int]) -> Iterator[None]:
    """Count the memory that the forward passes in the block keep for their backward passes, parameters aside."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in engine.model.parameters()}
    found = dict[int, int]()

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in parameters:
            found[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield
    seen["saved"] = sum(found.values())


def _live_storages() -> dict[int, int]:
    """Bytes of every piece of memory that some tensor of this process stands for, by its address."""
    found = dict[int, int]()
    for value in gc.get_objects():
        if issubclass(type(value), Tensor):  # not isinstance: that asks lazy modules for their class
            for tensor in (value, value.grad if value.is_leaf else None):
                if tensor is not None and tensor.device.type != "meta":
                    storage = tensor.untyped_storage()
                    found[storage.data_ptr()] = storage.nbytes()
    return found


def _pss_bytes() -> int:
    line = next(line for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    return 1024 * int(line.split()[1])


def _batch(spec: PretrainSpec, vocabulary: int) -> dict[str, Tensor]:
    """Rows of one document each: what packed documents add is a mask."""
    places = spec.model.context_tokens + 1
    tokens = torch.randint(0, vocabulary, (spec.micro_batch_rows, places))
    position = torch.arange(places).repeat(spec.micro_batch_rows, 1)
    return {"tokens": tokens, "segment": torch.zeros_like(tokens), "position": position}


def rates() -> dict[str, float]:
    """FLOP/s of a 2048-square product, and bytes a second that a rank sends when all of them sum 40 MB."""
    numbers = torch.zeros(10_000_000)
    seconds = []
    for _ in range(5):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(numbers)
        seconds.append(time.perf_counter() - start)
    world = dist.get_world_size()
    sent = 2 * numbers.nbytes * (world - 1) / world
    products = {name: matmul_flops_per_second(dtype, threads=1) for name, dtype in DTYPES.items()}
    return {**products, "exchange": sent / median(seconds)}


def main(cases: Path, out: Path) -> None:
    """Measure every case, and the rates if one is timed."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    asked, found = [Case(**case) for case in json.loads(cases.read_text())], []
    known = rates() if any(case.steps for case in asked) else {}
    measure(asked[0])  # what is imported at its first use would count as the first case's
    for case in asked:
        found.append(measure(case))
        gc.collect()
    (out / f"rank-{dist.get_rank()}.json").write_text(json.dumps({"rates": known, "cases": found}))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
