"""Optimizers by name: which parameters move together, how, and at which multiple of the learning rate.

matrices of blocks   AdamW, decayed; or Muon
other matrices       AdamW, decayed
embedding tables     AdamW, decayed, at a learning rate of their own
vectors              AdamW
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foundation_core.errors import ConfigError
from foundation_core.model.block import Block
from foundation_core.model.experts import Experts
from foundation_core.specs import OptimizerSpec
from foundation_core.train.muon import Muon
from foundation_core.train.ranks import GroupOfRanks

LR_FACTOR = "lr_factor"
"""Key of a parameter group: its learning rate in multiples of the step's."""


def build_optimizer(model: nn.Module, spec: OptimizerSpec, dtype: torch.dtype = torch.float32) -> torch.optim.Optimizer:
    """The optimizer of a spec over the parameters that learn.

    Args:
        dtype: number format of the training's products; Muon's are in it too.

    Raises:
        ConfigError: the model has nothing for it, or the engine that calls has no such optimizer.
    """
    if spec.kind == "adamw":
        return _adamw(parameter_groups(model, spec), spec)
    if spec.kind == "muon":
        return _muon(model, spec, dtype)
    raise ConfigError(
        f"this engine has no optimizer {spec.kind}",
        allowed="adamw, muon",
        fix="take the deepspeed engine, or another optimizer.kind",
    )


def parameter_groups(
    model: nn.Module, spec: OptimizerSpec, apart: frozenset[int] = frozenset()
) -> list[dict[str, Any]]:
    """AdamW's groups over the parameters that learn; vectors (norms, biases) are not decayed.

    Pulling a norm's gain or a bias towards zero changes what the layer computes without limiting its capacity.

    Args:
        apart: ids of parameters that something else moves.
    """
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in apart]
    matrices = [p for p in learning if p.ndim >= 2 and id(p) not in tables]
    embeddings = [p for p in learning if id(p) in tables]
    vectors = [p for p in learning if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": spec.weight_decay, LR_FACTOR: 1.0},
        {"params": embeddings, "weight_decay": spec.weight_decay, LR_FACTOR: spec.embedding_lr_factor},
        {"params": vectors, "weight_decay": 0.0, LR_FACTOR: 1.0},
    ]
    return [group for group in groups if group["params"]]


def block_matrices(model: nn.Module) -> list[Tensor]:
    """The weights of the linear layers of all blocks, each once; a router, whose rows are experts, is none of them."""
    routers = {id(part.router.weight) for part in model.modules() if isinstance(part, Experts)}
    inside = (part for block in model.modules() if isinstance(block, Block) for part in block.modules())
    weights = {id(part.weight): part.weight for part in inside if isinstance(part, nn.Linear)}
    return [weight for key, weight in weights.items() if key not in routers]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group the learning rate of the step, times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group[LR_FACTOR]


def _adamw(groups: list[dict[str, Any]], spec: OptimizerSpec) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), fused=True)


def _muon(model: nn.Module, spec: OptimizerSpec, dtype: torch.dtype) -> torch.optim.Optimizer:
    found = block_matrices(model)
    if not found:
        raise ConfigError(
            "muon moves the matrices of blocks, and this model has none",
            fix="set optimizer.kind adamw, or build the family of foundation_core's blocks",
        )
    matrices = [matrix for matrix in found if matrix.requires_grad]
    groups = parameter_groups(model, spec, frozenset(map(id, matrices)))
    others = _adamw(groups, spec) if groups else None
    if not matrices:  # all of them are frozen
        assert others is not None
        return others
    group = {
        "params": matrices,
        "lr": spec.lr * spec.muon.lr_factor,
        "weight_decay": spec.weight_decay,
        "momentum": spec.muon.momentum,
        "iterations": spec.muon.iterations,
        LR_FACTOR: spec.muon.lr_factor,
    }
    several = dist.is_initialized() and dist.get_world_size() > 1
    return Muon(group, others, dtype, GroupOfRanks() if several else None)
