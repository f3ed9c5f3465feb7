"""What a model says of one small example: kept with a checkpoint, asked again of the model that was read from it.

    save     model(example) --> 65,536 values at the most --> example.f32, and in the manifest where they were computed
    restore  model(example) --> the same values?

Hashes tell that the files are those that were written. That the right numbers were written, and went to the right
places of this engine, at this number of workers, only the model can tell.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from foundation_core.data.loading.loader import Batch, on_device
from foundation_core.objectives.base import Objective
from foundation_core.train.engine import Engine

EXAMPLE_TOKENS = 16
MOST_VALUES = 1 << 16
TOLERANCE = {"float32": 1e-4, "bf16": 3e-2}
"""The largest difference by the largest value, where a number of workers, an engine or a machine differs. On the same
ones there must be none."""


class OutputCheck:
    """Asks an engine's model of one example.

    Args:
        row: one row of the data, as `Rows.gather` gives it; of a text its first tokens are enough.
        precision: number format of the products.
    """

    def __init__(
        self, engine: Engine, objective: Objective, row: Batch, precision: str, *, compiled: bool = False
    ) -> None:
        self.engine, self.precision, self.compiled = engine, precision, compiled
        short = {name: values[:, : EXAMPLE_TOKENS + 1] if values.dim() == 2 else values for name, values in row.items()}
        short["sample"] = torch.zeros(1, dtype=torch.int64)
        self._inputs = objective.prepare(on_device(short, engine.device), seed=0).inputs

    def outputs(self) -> Tensor:
        """(values,) float32 on the CPU, evenly spaced ones if there are more than `MOST_VALUES`. A collective call."""
        was_training = self.engine.model.training
        self.engine.model.eval()
        with torch.no_grad():
            found = [part for part in _tensors(self.engine.model(**self._inputs)) if part.is_floating_point()]
        self.engine.model.train(was_training)
        values = torch.cat([tensor.detach().float().flatten() for tensor in found])
        return values[:: -(-len(values) // MOST_VALUES)].cpu().contiguous()

    def circumstances(self) -> dict[str, Any]:
        """What must be equal for the outputs to be equal to the last digit."""
        device = self.engine.device
        return {
            "inputs": _digest(self._inputs),
            "engine": type(self.engine).__name__,
            "world": self.engine.world,
            "precision": self.precision,
            "compiled": self.compiled,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        }

    def differs(self, saved: Tensor, then: Mapping[str, Any]) -> bool:
        """Whether the model says something else than it said when it was saved. A collective call.

        Args:
            saved: what it said.
            then: the circumstances. Of another example, as another version of this program makes it, nothing is known.
        """
        now, found = self.circumstances(), self.outputs()
        if now["inputs"] != then.get("inputs"):
            return False
        if found.shape != saved.shape or bool((found.isfinite() != saved.isfinite()).any()):
            return True
        allowed = 0.0 if now == then else TOLERANCE[self.precision] * float(saved.nan_to_num().abs().max())
        return float((found - saved).nan_to_num().abs().max()) > allowed


def to_bytes(values: Tensor) -> bytes:
    """Values as they are kept."""
    flat = values.contiguous().flatten()
    return ctypes.string_at(flat.data_ptr(), flat.numel() * flat.element_size())


def from_file(path: Path) -> Tensor:
    """Values that were kept."""
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.float32)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in what a model is given or gives, in a fixed order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif hasattr(value, "__dict__"):
        yield from _tensors(list(vars(value).values()))


def _digest(inputs: Mapping[str, Any]) -> str:
    state = xxhash.xxh3_128()
    for tensor in _tensors(inputs):
        state.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        state.update(to_bytes(tensor.cpu().contiguous()))
    return state.hexdigest()


def _processor() -> str:
    """The processor by its name and by what torch uses of it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.machine())}, {torch.backends.cpu.get_cpu_capability()}"
