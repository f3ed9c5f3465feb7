"""The Engine: what holds parameters, gradients and optimizer state; and the plain one, for one process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from foundation_core.errors import DivergedError
from foundation_core.specs import OptimizerSpec
from foundation_core.train.fragments import STEP, WEIGHT, Fragment, StateSource, check_shapes, whole
from foundation_core.train.optimizer import build_optimizer, set_lr


@dataclass(frozen=True)
class EngineRequest:
    """What an engine is built for.

    Args:
        precision: number format of the products, already decided: bf16 or float32.
        micro_batch_rows: rows of one forward pass of one rank.
        offload_optimizer: whether the optimizer's state is kept, and parameters are moved, in the memory of the CPU.
    """

    optimizer: OptimizerSpec
    precision: str = "float32"
    micro_batch_rows: int = 1
    offload_optimizer: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of the products."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


class Engine(Protocol):
    """A model that can learn. Every rank calls the same methods in the same order."""

    model: nn.Module
    """What the objective calls; the wrapped module where the engine wraps it."""
    rank: int
    world: int
    device: torch.device

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate gradients of a loss that is already scaled: their sum over the ranks is the gradient.

        Args:
            last: whether this is the step's last micro-batch, so that ranks may exchange gradients now.
        """

    def step(self, lr: float) -> float:
        """Clip, update, forget the gradients; the global gradient norm before clipping.

        Raises:
            DivergedError: the norm is not finite; parameters did not move, and the gradients are forgotten.
        """

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all ranks."""

    def gather_over_ranks(self, value: Tensor) -> Tensor:
        """(world, ...) the tensor of every rank, in the order of the ranks."""

    def barrier(self) -> None:
        """Wait for every rank."""

    def weights(self) -> dict[str, Tensor]:
        """All parameters and buffers, whole, float32, on the CPU, named as in the bare module. A collective call."""

    def discard(self) -> None:
        """Forget the gradients that were accumulated: the step is done again or left out."""

    def fragments(self) -> Iterator[Fragment]:
        """This rank's part of the state; those of all ranks together cover every tensor once. Not a collective call."""

    def restore(self, source: StateSource) -> None:
        """Take over a state that any number of ranks of any engine saved.

        Raises:
            CheckpointError: it is of another model.
        """


EngineFactory = Callable[[nn.Module, EngineRequest], Engine]
"""Builds an engine around a bare module."""


class TorchEngine:
    """The plain engine: one process, torch's own optimizer. Every other engine is held to it."""

    rank, world = 0, 1

    def __init__(self, module: nn.Module, request: EngineRequest) -> None:
        self.model = module
        self.device = next(module.parameters()).device
        self.optimizer = build_optimizer(module, request.optimizer, request.dtype)
        self.clip_norm = request.optimizer.clip_norm
        if request.precision == "bf16":
            _autocast_forward(module, self.device.type)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate gradients."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, lr: float) -> float:
        """Clip, update, forget the gradients. One that nothing made is zeros, as on many ranks."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        norm = float(nn.utils.clip_grad_norm_(parameters, self.clip_norm))
        if not math.isfinite(norm):
            self.discard()
            raise diverged_gradient(norm)
        set_lr(self.optimizer, lr)
        self.optimizer.step()
        self.discard()
        return norm

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """The value: there is one rank."""
        return value

    def gather_over_ranks(self, value: Tensor) -> Tensor:
        """The value, as the only one."""
        return value[None]

    def barrier(self) -> None:
        """Nothing to wait for."""

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers, float32, on the CPU."""
        return {name: value.detach().float().cpu().clone() for name, value in self.model.state_dict().items()}

    def discard(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def fragments(self) -> Iterator[Fragment]:
        """Every parameter and buffer, and what the optimizer keeps of it."""
        for name, value in self.model.state_dict().items():
            yield whole(name, WEIGHT, value)
        for name, parameter in self.model.named_parameters():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                yield whole(name, kind, value)

    def restore(self, source: StateSource) -> None:
        """Take over a state."""
        held = self.model.state_dict()
        check_shapes(source, {name: tuple(value.shape) for name, value in held.items()})
        with torch.no_grad():
            for name, value in held.items():
                value.copy_(source.read(name, WEIGHT).view(value.shape))
        for name, parameter in self.model.named_parameters():
            kept = {}
            for kind in source.kinds(name):
                if kind != WEIGHT:
                    value = source.read(name, kind)
                    kept[kind] = (value.view(()) if kind == STEP else value.view(parameter.shape)).to(self.device)
            self.optimizer.state.pop(parameter, None)
            if kept:
                self.optimizer.state[parameter] = kept


def _autocast_forward(module: nn.Module, device_type: str) -> None:
    """Run the module's forward in bf16 autocast; parameters stay float32."""
    plain = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device_type, torch.bfloat16):
            return plain(*args, **kwargs)

    module.forward = forward


def diverged_gradient(norm: float) -> DivergedError:
    """The error for a gradient norm that is not a finite number."""
    return DivergedError(f"the gradient norm is {norm}", fix="lower the learning rate or lengthen the warm-up")
