"""AdamW with decay on matrices only, and a learning rate of their own for embedding tables."""

from __future__ import annotations

import torch
from torch import nn

from foundation_core.specs import OptimizerSpec

LR_FACTOR = "lr_factor"
"""Key of a parameter group: its learning rate in multiples of the step's."""


def build_optimizer(model: nn.Module, spec: OptimizerSpec) -> torch.optim.AdamW:
    """AdamW over the parameters that learn; vectors (norms, biases) are not decayed.

    Pulling a norm's gain or a bias towards zero changes what the layer computes without limiting its capacity.
    """
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [p for p in learning if p.ndim >= 2 and id(p) not in tables]
    embeddings = [p for p in learning if id(p) in tables]
    vectors = [p for p in learning if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": spec.weight_decay, LR_FACTOR: 1.0},
        {"params": embeddings, "weight_decay": spec.weight_decay, LR_FACTOR: spec.embedding_lr_factor},
        {"params": vectors, "weight_decay": 0.0, LR_FACTOR: 1.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=spec.lr, betas=(spec.beta1, spec.beta2), fused=True
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group the learning rate of the step, times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group[LR_FACTOR]
