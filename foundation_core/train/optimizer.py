"""AdamW with decay on matrices only."""

from __future__ import annotations

import torch
from torch import nn

from foundation_core.specs import OptimizerSpec


def build_optimizer(model: nn.Module, spec: OptimizerSpec) -> torch.optim.AdamW:
    """AdamW over the parameters that learn; vectors (norms, biases) are not decayed.

    Pulling a norm's gain or a bias towards zero changes what the layer computes without limiting its capacity.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=spec.lr, betas=(spec.beta1, spec.beta2), fused=True
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group the learning rate of the step."""
    for group in optimizer.param_groups:
        group["lr"] = lr
