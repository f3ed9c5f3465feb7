"""Which models a compiled step can write with, and what it is told of them.

Every part says it by its kind, and exactly so: a subclass may do something else. What depends on positions is asked of
the model's own parts, once for all positions that there will be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import numba
import numpy as np
import torch
from torch import Tensor, nn

from foundation_core.data.compiled import state_of_source
from foundation_core.generation import kernels, step
from foundation_core.generation.kernels import Make, Tables
from foundation_core.generation.step import Weights
from foundation_core.model.attention import Attention
from foundation_core.model.block import Block, BranchNorm, FeedForward, GatedFeedForward, PostNorm, PreNorm, SquaredReLU
from foundation_core.model.heads import TiedHead, VocabularyHead
from foundation_core.model.positions import ALiBi, Learned, RelativeBias, Rotary, Sinusoidal
from foundation_core.model.stems import Borrowed, TokenStem
from foundation_core.model.transformer import Model, Transformer

_RESIDUALS: dict[type[nn.Module], int] = {PreNorm: step.BEFORE, PostNorm: step.AFTER, BranchNorm: step.ON_BRANCH}
_NORMS: dict[type[nn.Module], int] = {
    nn.Identity: kernels.NO_NORM,
    nn.LayerNorm: kernels.LAYER_NORM,
    nn.RMSNorm: kernels.RMS_NORM,
}
_ACTIVATIONS: dict[type[nn.Module], int] = {
    nn.GELU: kernels.GELU,
    nn.ReLU: kernels.RELU,
    nn.SiLU: kernels.SILU,
    SquaredReLU: kernels.SQUARED_RELU,
}
_OTHERS = (
    *(Model, Transformer, nn.ModuleList, Block, Attention, FeedForward, GatedFeedForward, nn.Linear, nn.Dropout),
    *(TokenStem, nn.Embedding, Borrowed, Learned, Sinusoidal, Rotary, ALiBi, RelativeBias, VocabularyHead, TiedHead),
)
_KNOWN = {*_RESIDUALS, *_NORMS, *_ACTIVATIONS, *_OTHERS}
NUMPY: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.bfloat16: np.dtype(np.uint16),
}
"""How numbers are kept, by the model's number format."""


def is_on_disk(dtype: torch.dtype) -> bool:
    """Whether the machine code of a step was kept by this process or an earlier one, from this state of its source."""
    return dtype in NUMPY and _note(NUMPY[dtype]).exists()


def note_on_disk(kind: np.dtype[Any]) -> None:
    """Tells later processes that the machine code of a step is there."""
    with suppress(OSError):  # then numba keeps it elsewhere, and each process finds it when it needs it
        _note(kind).touch()


def _note(kind: np.dtype[Any]) -> Path:
    return Path(numba.config.CACHE_DIR) / f"step-{kind.name}-{state_of_source()}"


class Plan(NamedTuple):
    """What a compiled step is told of a model.

    Args:
        held: keeps what the weights' addresses point to.
    """

    make: Make
    weights: Weights
    held: list[Tensor]


def plan_of(model: nn.Module) -> Plan | None:
    """The plan of a model in evaluation mode; None where a part of it is of a kind that no compiled step knows."""
    if not _is_known(model):
        return None
    blocks = [cast(Block, block) for block in cast(Model, model).trunk.blocks]
    makes = {_make(cast(Model, model), block) for block in blocks}
    if len(makes) != 1 or None in makes:
        return None
    held = list[Tensor]()
    like = np.empty(0, NUMPY[next(model.parameters()).dtype])
    block_weights = np.array([[_place(part, held) for part in _parts(block)] for block in blocks])
    outside = np.array([_place(part, held) for part in _outside(cast(Model, model))])
    return Plan(cast(Make, makes.pop()), Weights(block_weights, outside, like), held)


def _is_known(model: nn.Module) -> bool:
    """Whether all its parts are, and nothing looks into them or changes them while they compute."""
    if not all(type(part) in _KNOWN for part in model.modules()):
        return False
    if any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in model.modules()):
        return False
    parameters = list(model.parameters())
    if {(weight.device.type, weight.dtype) for weight in parameters} - {("cpu", dtype) for dtype in NUMPY}:
        return False
    gelus = (part for part in model.modules() if isinstance(part, nn.GELU))
    return len({weight.dtype for weight in parameters}) == 1 and all(part.approximate == "none" for part in gelus)


def _make(model: Model, block: Block) -> Make | None:
    """What a block is made of; None where it is not one that a compiled step knows."""
    trunk, mix, feed = model.trunk, block.mix.branch, block.feed.branch
    head, stem = model.head, cast(TokenStem, model.stem)
    if not (isinstance(stem, TokenStem) and isinstance(stem.embed, nn.Embedding | Borrowed) and trunk.causal):
        return None
    if stem.runs is not None:  # a step there knows one token, and not those before it
        return None
    if block.read is not None or not isinstance(mix, Attention) or not isinstance(feed, FeedForward):
        return None
    if type(block.mix) is not type(block.feed) or (isinstance(head, TiedHead) and head.transform is not None):
        return None
    norms = [part for part in model.modules() if type(part) in _NORMS and not isinstance(part, nn.Identity)]
    kinds = {(_NORMS[type(norm)], _epsilon(norm)) for norm in norms}
    if len(kinds) > 1 or any(norm.weight is None for norm in norms):
        return None
    norm, epsilon = kinds.pop() if kinds else (kernels.NO_NORM, 0.0)
    return Make(
        depth=len(trunk.blocks),
        width=mix.query.in_features,
        heads=mix.query.out_features // mix.head_width,
        kv_heads=mix.key.out_features // mix.head_width,
        hidden=feed.up.out_features,
        vocabulary=len(stem.embed.weight),
        residual=_RESIDUALS[type(block.mix)],
        norm=norm,
        epsilon=epsilon,
        activation=_ACTIVATIONS[type(feed.activation)],
        rotary=trunk.rotary is not None,
        biased=trunk.score_bias is not None,
    )


def _epsilon(norm: Any) -> float:
    return float(torch.finfo(norm.weight.dtype).eps if norm.eps is None else norm.eps)


def _parts(block: Block) -> Sequence[Any]:
    """In the order of their numbers in `step`."""
    mix, feed = cast(Attention, block.mix.branch), cast(FeedForward, block.feed.branch)
    gate = feed.gate if isinstance(feed, GatedFeedForward) else None
    attention = (block.mix.norm, mix.query_norm, mix.key_norm, mix.query, mix.key, mix.value, mix.out)
    return (*attention, block.feed.norm, feed.up, gate, feed.out)


def _outside(model: Model) -> Sequence[Any]:
    stem, head = cast(TokenStem, model.stem), model.head
    return stem.embed, stem.norm, model.trunk.norm, head if isinstance(head, TiedHead) else head.out


def _place(part: Any, held: list[Tensor]) -> tuple[int, int]:
    """Addresses of a part's weight and bias, 0 for what is not there."""
    found = [getattr(part, name, None) for name in ("weight", "bias")]
    whole = [None if tensor is None else tensor.detach().contiguous() for tensor in found]
    held += [tensor for tensor in whole if tensor is not None]
    weight, bias = (0 if tensor is None else tensor.data_ptr() for tensor in whole)
    return weight, bias


def tables_of(model: Model, positions: int) -> Tables:
    """What the model's parts say of the first positions."""
    stem, trunk = cast(TokenStem, model.stem), model.trunk
    position_1S = torch.arange(positions)[None]
    place, cos, sin, score = (torch.empty(0, 0) for _ in range(4))
    if stem.place is not None:
        place = stem.place(position_1S)[0].to(next(model.parameters()).dtype)
    if trunk.rotary is not None:
        rotation = trunk.rotary(position_1S)
        half = rotation.cos.shape[-1] // 2
        cos, sin = rotation.cos[0, 0, :, :half], rotation.sin[0, 0, :, half:]
    if trunk.score_bias is not None:  # as the last position sees the others: the nearest first
        score = trunk.score_bias(position_1S[:, -1:], position_1S)[0, :, 0].flip(-1)
    return Tables(*_arrays((place, cos, sin, score)))


def _arrays(tensors: Iterable[Tensor]) -> Iterable[Any]:
    return (tensor.detach().float().contiguous().numpy() for tensor in tensors)
