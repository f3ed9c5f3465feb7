"""The DeepSpeed engine behind our Engine interface: ZeRO 0 to 3, bf16 or float32, CPU or GPU.

DeepSpeed averages gradients over the ranks where our contract sums them, so each loss is multiplied by the number of
ranks. It is told to accumulate nothing by itself: `backward(last=...)` says where a step ends.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foundation_core.train.engine import EngineFactory, EngineRequest, TorchEngine, diverged_gradient
from foundation_core.train.fragments import Fragment, StateSource
from foundation_core.train.optimizer import build_optimizer, set_lr

_SHARED_MEMORY_OPERATOR = "deepspeed_shm_comm"
"""Compiled by DeepSpeed on a CPU for half a minute, if we let it; only its inference calls it (decision 0013)."""


def engine_factory(name: str, zero_stage: int) -> EngineFactory:
    """The factory that a spec's `engine` names: torch, or deepspeed at a ZeRO stage."""
    return TorchEngine if name == "torch" else partial(DeepSpeedEngine, zero_stage=zero_stage)


class DeepSpeedEngine:
    """One rank of a DeepSpeed engine; the process group exists already."""

    def __init__(self, module: nn.Module, request: EngineRequest, *, zero_stage: int = 1) -> None:
        deepspeed = _import_quietly()
        self._zero_stage = zero_stage
        self._keeps_no_norm = zero_stage == 0 and request.precision == "float32"
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=module,
            optimizer=build_optimizer(module, request.optimizer),
            config=deepspeed_config(request, zero_stage),
            dist_init_required=False,
        )
        self.model: nn.Module = self._engine
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = torch.device(self._engine.device)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate gradients; ranks exchange them after the last micro-batch."""
        self._engine.set_gradient_accumulation_boundary(is_boundary=last)
        self._engine.backward(loss * self.world, scale_wrt_gas=False)
        if not last:
            self._engine.step()  # not a boundary: DeepSpeed only counts the micro-batch

    def step(self, lr: float) -> float:
        """Clip, update, forget the gradients."""
        set_lr(self._engine.optimizer, lr)
        if self._keeps_no_norm:
            norm = self._plain_gradient_norm()
            if math.isfinite(norm):  # elsewhere DeepSpeed looks for itself before it moves a parameter
                self._engine.step()
        else:
            self._engine.step()
            norm = float(self._engine.get_global_grad_norm())
        if not math.isfinite(norm):
            raise diverged_gradient(norm)
        return norm

    def _plain_gradient_norm(self) -> float:
        """The norm at ZeRO 0 in float32, where DeepSpeed clips by it and forgets it; every rank holds the gradient."""
        gradients = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
        return float(nn.utils.get_total_norm(gradients))

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """The sum over all ranks."""
        total = value.clone()
        dist.all_reduce(total)
        return total

    def gather_over_ranks(self, value: Tensor) -> Tensor:
        """(world, ...) the tensor of every rank."""
        parts = [torch.empty_like(value) for _ in range(self.world)]
        dist.all_gather(parts, value.contiguous())
        return torch.stack(parts)

    def barrier(self) -> None:
        """Wait for every rank."""
        dist.barrier()

    def weights(self) -> dict[str, Tensor]:
        """All parameters and buffers, float32: the master copy where training runs in bf16."""
        from deepspeed.utils import safe_get_full_fp32_param

        module = self._engine.module
        found: dict[str, Tensor] = {}
        for name, parameter in module.named_parameters():
            full = safe_get_full_fp32_param(parameter) if self._zero_stage else None
            found[name] = (parameter if full is None else full).detach().float().cpu().clone()
        for name, buffer in module.named_buffers():
            if name in module.state_dict():
                found[name] = buffer.detach().float().cpu().clone()
        return found

    def discard(self) -> None:
        """Forget the gradients."""
        raise NotImplementedError

    def fragments(self) -> Iterator[Fragment]:
        """This rank's part of the state."""
        raise NotImplementedError

    def restore(self, source: StateSource) -> None:
        """Take over a state."""
        raise NotImplementedError


def deepspeed_config(request: EngineRequest, zero_stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration for a request."""
    zero: dict[str, Any] = {"stage": zero_stage}
    if zero_stage <= 1 and not torch.cuda.is_available():
        # Against fragments of a GPU's memory gradients are copied into one buffer; on a CPU that is 8% of a step.
        zero["contiguous_gradients"] = False
    return {
        "train_micro_batch_size_per_gpu": request.micro_batch_rows,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": request.optimizer.clip_norm,
        "bf16": {"enabled": request.precision == "bf16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }


def _import_quietly() -> Any:
    """DeepSpeed, without its log lines; it needs the accelerator's name before it looks for one."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    import deepspeed
    from deepspeed import comm
    from deepspeed.utils import logger

    logger.setLevel("ERROR")
    deepspeed.ops.__compatible_ops__[_SHARED_MEMORY_OPERATOR] = False
    with contextlib.redirect_stdout(io.StringIO()):
        comm.init_distributed(dist_backend=dist.get_backend(), dist_init_required=False, verbose=False)
    return deepspeed
