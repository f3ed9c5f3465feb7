"""How a training runs the blocks of any model: compiled, and computed again for the gradient where memory is short.

    as built       block(x) -> y                    everything in between is kept for the gradient
    checkpointed   block(x) -> y   x is kept        the gradient computes what lay in between once more
    compiled       block(x) -> y                    by machine code that torch makes of the block

Both change no name and no weight: what an engine holds and what is saved stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foundation_core.model.block import Block


def blocks_of(model: nn.Module) -> Iterator[Block]:
    """Every block, in the order of the model's parts."""
    return (part for part in model.modules() if isinstance(part, Block))


def compile_blocks(model: nn.Module) -> None:
    """Have torch compile each block when it is first called; alike ones share what was compiled.

    The head and the loss stay as they are: they work in pieces whose sizes differ from batch to batch.
    """
    for block in blocks_of(model):
        block.forward = torch.compile(block.forward)  # type: ignore[method-assign]  # names of weights stay as they are


def checkpoint_activations(model: nn.Module) -> None:
    """Have each block keep its input alone, and compute the rest again when gradients are made.

    A block then costs a forward pass more: a third of a step's products. Source: Chen et al. 2016, "Training Deep Nets
    with Sublinear Memory Cost", section 4.
    """
    for block in blocks_of(model):
        block.forward = partial(_recomputed, block.forward)  # type: ignore[method-assign]  # the same


def _recomputed(forward: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """The block's output. Without gradients it runs as built: a cache that it writes to must be written to once."""
    if not torch.is_grad_enabled():
        return forward(*inputs)
    output: Tensor = checkpoint(forward, *inputs, use_reentrant=False)
    return output
