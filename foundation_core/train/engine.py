"""The Engine: what holds parameters, gradients and optimizer state; and the plain one, for one process."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from foundation_core.errors import CheckpointError, DivergedError
from foundation_core.specs import OptimizerSpec
from foundation_core.train.optimizer import build_optimizer, set_lr

_ENGINE_FILE = "engine.pt"


@dataclass(frozen=True)
class EngineRequest:
    """What an engine is built for.

    Args:
        precision: number format of the products, already decided: bf16 or float32.
        micro_batch_rows: rows of one forward pass of one rank.
    """

    optimizer: OptimizerSpec
    precision: str = "float32"
    micro_batch_rows: int = 1


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
            DivergedError: the norm is not finite; parameters did not move.
        """

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all ranks."""

    def gather_over_ranks(self, value: Tensor) -> Tensor:
        """(world, ...) the tensor of every rank, in the order of the ranks."""

    def barrier(self) -> None:
        """Wait for every rank."""

    def weights(self) -> dict[str, Tensor]:
        """All parameters and buffers, whole, float32, on the CPU, named as in the bare module. A collective call."""

    def save(self, folder: Path) -> None:
        """Write this rank's part of parameters and optimizer state into a folder that exists."""

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote.

        Raises:
            CheckpointError: the folder was saved by another number of ranks or another engine.
        """


EngineFactory = Callable[[nn.Module, EngineRequest], Engine]
"""Builds an engine around a bare module."""


class TorchEngine:
    """The plain engine: one process, torch's own optimizer. Every other engine is held to it."""

    rank, world = 0, 1

    def __init__(self, module: nn.Module, request: EngineRequest) -> None:
        self.model = module
        self.device = next(module.parameters()).device
        self.optimizer = build_optimizer(module, request.optimizer)
        self.clip_norm = request.optimizer.clip_norm
        if request.precision == "bf16":
            _autocast_forward(module, self.device.type)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate gradients."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, lr: float) -> float:
        """Clip, update, forget the gradients."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.clip_norm))
        if not math.isfinite(norm):
            raise diverged_gradient(norm)
        set_lr(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
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

    def save(self, folder: Path) -> None:
        """Write parameters and optimizer state."""
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, folder / _ENGINE_FILE)

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote."""
        path = folder / _ENGINE_FILE
        if not path.exists():
            raise CheckpointError(
                f"{folder} was not saved by the torch engine",
                fix="resume with the engine that saved it, or remove the checkpoints folder to train anew",
            )
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


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
