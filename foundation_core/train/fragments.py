"""A training's state as named tensors, of which each rank holds runs of values; saved by N ranks, read by M.

    engine.fragments() -> rank-00000.safetensors, one file a rank -> StateFiles.read(name, kind, start, count)

    a weight of 10 values, saved by 2 ranks    [0 1 2 3 4][5 6 7 8 9]
    and read by 3                              [0 1 2 3][4 5 6][7 8 9]

No number of ranks, no engine and no ZeRO stage is in it: whoever needs values asks for them by name and place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from foundation_core.errors import CheckpointError

WEIGHT = "weight"
"""Kind of a parameter's own values, float32; a persistent buffer's too, in its own type."""
STEP = "step"
"""Kind of an optimizer's count of its updates, one value for each parameter that it has moved."""
INDEX = "fragments"
"""Where a file's metadata say which fragment is under which key."""


@dataclass(frozen=True)
class Fragment:
    """A run of one tensor's values, in the order of the flattened tensor.

    Args:
        name: of the parameter or buffer, as in the bare module.
        kind: `WEIGHT`, or the optimizer's own name for what it keeps of it: exp_avg, exp_avg_sq, momentum_buffer, step.
        start: the first value's place in the flattened tensor.
        values: (count,) the engine's own memory, which the next step changes; not a copy where that can be.
        shape: of the whole tensor.
    """

    name: str
    kind: str
    start: int
    values: Tensor
    shape: tuple[int, ...]


def whole(name: str, kind: str, value: Tensor) -> Fragment:
    """A tensor that a rank holds all of, as a fragment."""
    return Fragment(name, kind, 0, value.detach().reshape(-1), tuple(value.shape))


class StateSource(Protocol):
    """Where a state is read from."""

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every parameter and buffer, by name."""

    def kinds(self, name: str) -> Sequence[str]:
        """What is kept of a parameter or buffer, sorted; empty if it is not known."""

    def read(self, name: str, kind: str, start: int = 0, count: int | None = None) -> Tensor:
        """(count,) values of a tensor from a place on; all of them, if not said.

        Raises:
            CheckpointError: they are not there.
        """


def check_shapes(source: StateSource, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a state of another model.

    Args:
        shapes: of the model's parameters and persistent buffers, by name.

    Raises:
        CheckpointError: a name that only one of them has, or whose shape differs.
    """
    found = source.shapes()
    for name in dict.fromkeys([*shapes, *found]):
        if found.get(name) != shapes.get(name):
            raise CheckpointError(
                f"the checkpoint is of another model: it has {_said(found.get(name))} of {name}",
                allowed=_said(shapes.get(name)),
                fix="remove it to train anew, or train the model that it is of",
            )


def _said(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else f"shape {list(shape)}"


def share_out(fragments: Sequence[Fragment], rank: int, world: int) -> Iterator[Fragment]:
    """A rank's part of what every rank holds whole, so that each value is written once and all ranks write alike.

    All values stand in one line, which is cut into parts of one length; a rank has one of them.

    Args:
        fragments: the same on every rank, in the same order.
    """
    total = sum(fragment.values.numel() for fragment in fragments)
    first, end = rank * total // world, (rank + 1) * total // world
    place = 0
    for fragment in fragments:
        size = fragment.values.numel()
        start, stop = max(first - place, 0), min(end - place, size)
        if start < stop:
            yield replace(fragment, start=fragment.start + start, values=fragment.values[start:stop])
        place += size


class StartingWeights:
    """Weights that no optimizer has moved yet, as a state.

    Args:
        weights: by name, of any shape.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight."""
        return {name: tuple(weight.shape) for name, weight in self._weights.items()}

    def kinds(self, name: str) -> list[str]:
        """The weight, and nothing of an optimizer's."""
        return [WEIGHT] if name in self._weights else []

    def read(self, name: str, kind: str, start: int = 0, count: int | None = None) -> Tensor:
        """(count,) values of a weight."""
        assert kind == WEIGHT
        flat = self._weights[name].reshape(-1)
        return flat[start:] if count is None else flat[start : start + count]


class _Run(NamedTuple):
    """Where a fragment lies."""

    start: int
    size: int
    path: Path
    key: str


class StateFiles:
    """The state in the files that all ranks wrote: only what is asked for is read.

    Raises:
        CheckpointError: a file is no safetensors file of fragments.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._runs: dict[str, dict[str, list[_Run]]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._open: dict[Path, Any] = {}
        for path in sorted(paths):
            self._read_index(path)
        for kinds in self._runs.values():
            for runs in kinds.values():
                runs.sort()

    def kinds(self, name: str) -> list[str]:
        """What is kept of a parameter or buffer."""
        return sorted(self._runs.get(name, {}))

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every parameter and buffer, by name."""
        return self._shapes

    def read(self, name: str, kind: str, start: int = 0, count: int | None = None) -> Tensor:
        """(count,) values of a tensor."""
        runs = self._runs.get(name, {}).get(kind, [])
        end = max((run.start + run.size for run in runs), default=0) if count is None else start + count
        parts, place = [], start
        for run in runs:
            if run.start <= place < min(end, run.start + run.size):
                stop = min(end, run.start + run.size)
                parts.append(self._open[run.path].get_slice(run.key)[place - run.start : stop - run.start])
                place = stop
        if place < end or not runs:
            raise CheckpointError(
                f"the checkpoint has no values {place} to {end} of {kind} of {name}",
                fix="it is of another model, or of another version of this program: remove it to train anew",
            )
        return torch.cat(parts) if parts else torch.empty(0)

    def _read_index(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open  # the library alone trains without it

        try:
            file: Any = safe_open(path, framework="pt")
            entries = json.loads((file.metadata() or {})[INDEX])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path} holds no state: {error}", fix="remove its checkpoint") from error
        self._open[path] = file
        for number, entry in enumerate(entries):
            key = f"{number:06d}"
            count = file.get_slice(key).get_shape()[0]
            name, kind = entry["name"], entry["kind"]
            self._runs.setdefault(name, {}).setdefault(kind, []).append(_Run(entry["start"], count, path, key))
            if kind == WEIGHT:
                self._shapes[name] = tuple(entry["shape"])
