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

from cluster.deepspeed_state import state_of
from foundation_core.train.data_parallel import DataParallelEngine
from foundation_core.train.engine import EngineFactory, EngineRequest, TorchEngine, diverged_gradient
from foundation_core.train.fragments import Fragment, StartingWeights, StateSource
from foundation_core.train.optimizer import build_optimizer, parameter_groups, set_lr
from foundation_core.train.ranks import GroupOfRanks

_SHARED_MEMORY_OPERATOR = "deepspeed_shm_comm"
"""Compiled by DeepSpeed on a CPU for half a minute, if we let it; only its inference calls it (decision 0013)."""


def engine_factory(name: str, zero_stage: int) -> EngineFactory:
    """The factory that a spec's `engine` names: torch, or deepspeed at a ZeRO stage."""
    if name == "torch":
        return DataParallelEngine if dist.is_initialized() and dist.get_world_size() > 1 else TorchEngine
    return partial(DeepSpeedEngine, zero_stage=zero_stage)


class DeepSpeedEngine(GroupOfRanks):
    """One rank of a DeepSpeed engine; the process group exists already."""

    def __init__(self, module: nn.Module, request: EngineRequest, *, zero_stage: int = 1) -> None:
        super().__init__()
        deepspeed = _import_quietly()
        rounds = request.precision == "bf16"
        start = {name: value.detach().clone() for name, value in module.state_dict().items()} if rounds else {}
        self._engine, optimizer, _, _ = deepspeed.initialize(
            model=module,
            optimizer=_optimizer(module, request),
            config=deepspeed_config(request, zero_stage),
            dist_init_required=False,
        )
        self._clip_norm = request.optimizer.clip_norm if _clips_nothing(request, zero_stage) else None
        self._state = state_of(self._engine.module, optimizer, zero_stage)
        if rounds:
            # DeepSpeed rounds to bf16 before it makes the masters; at ZeRO 0 it moves them once, by no gradient.
            self.restore(StartingWeights(start))
        self.model: nn.Module = self._engine
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
        if self._clip_norm is None:
            self._engine.step()  # looks at the gradient before it moves a parameter, and skips the step if need be
            norm = float(self._engine.get_global_grad_norm())
        else:
            parameters = [p for p in self._engine.module.parameters() if p.grad is not None]
            norm = float(nn.utils.clip_grad_norm_(parameters, self._clip_norm))
            if math.isfinite(norm):
                self._engine.step()
        if not math.isfinite(norm):
            self.discard()
            raise diverged_gradient(norm)
        return norm

    def weights(self) -> dict[str, Tensor]:
        """All parameters and buffers, float32: the master copy where training runs in bf16."""
        buffers = {name: buffer.detach().float().cpu().clone() for name, buffer in self._state.buffers()}
        return self._state.weights() | buffers

    def discard(self) -> None:
        """Forget the gradients."""
        self._state.discard()

    def fragments(self) -> Iterator[Fragment]:
        """This rank's part of the state; where every rank holds all of it, a share."""
        return self._state.fragments(self.rank, self.world)

    def restore(self, source: StateSource) -> None:
        """Take over a state. A collective call."""
        self._state.restore(source)


def _clips_nothing(request: EngineRequest, zero_stage: int) -> bool:
    """Whether DeepSpeed is told not to clip: in plain float32 it would move the parameters whatever the norm is."""
    return zero_stage == 0 and request.precision == "float32"


def _optimizer(module: nn.Module, request: EngineRequest) -> torch.optim.Optimizer:
    spec = request.optimizer
    if spec.kind != "cpu_adam":
        return build_optimizer(module, spec, request.dtype)
    from deepspeed.ops.adam import DeepSpeedCPUAdam  # compiled when it is first made on a machine

    groups = parameter_groups(module, spec)
    made: torch.optim.Optimizer = DeepSpeedCPUAdam(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), adamw_mode=True)
    return made


def deepspeed_config(request: EngineRequest, zero_stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration for a request."""
    zero: dict[str, Any] = {"stage": zero_stage}
    if zero_stage <= 1 and not torch.cuda.is_available():
        # Against fragments of a GPU's memory gradients are copied into one buffer; on a CPU that is 8% of a step.
        zero["contiguous_gradients"] = False
    if request.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": request.micro_batch_rows,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0 if _clips_nothing(request, zero_stage) else request.optimizer.clip_norm,
        "bf16": {"enabled": request.precision == "bf16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW may be offloaded too, and needs no compiler
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
