"""The parts of a model as data: names of what they compute, and where their tensors lie in one buffer.

Each part that the anatomy page can compute has one entry in one of the tables here, by its exact type: a subclass may
compute something else. The page's scripts have a function of the same name for each.
"""

from __future__ import annotations

import base64
import ctypes
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from foundation_core.errors import ConfigError
from foundation_core.model.attention import Attention
from foundation_core.model.block import (
    Block,
    BranchNorm,
    FeedForward,
    GatedFeedForward,
    PostNorm,
    PreNorm,
    Residual,
    SquaredReLU,
)
from foundation_core.model.experts import Experts
from foundation_core.model.heads import TiedHead, VocabularyHead
from foundation_core.model.stems import PatchStem, TokenStem
from foundation_core.model.transformer import Transformer

Described = dict[str, Any]
"""What the page is told: numbers, names and places of tensors, as JSON has them."""


class Tensors:
    """Tensors one behind the other in one buffer; each is described by its place there, and is there once."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._known: dict[int, tuple[Tensor, Described]] = {}

    def add(self, tensor: Tensor, dtype: torch.dtype = torch.float16) -> Described:
        """The description of a tensor that is now in the buffer."""
        if id(tensor) not in self._known:  # the tensor is kept beside it: no other one gets its number
            self._known[id(tensor)] = tensor, self._added(tensor, dtype)
        return self._known[id(tensor)][1]

    def base64(self) -> str:
        """The buffer as text."""
        return base64.b64encode(self._bytes).decode()

    def _added(self, tensor: Tensor, dtype: torch.dtype) -> Described:
        self._bytes.extend(bytes(-len(self._bytes) % 4))  # a view in the browser begins at a multiple of its size
        at = len(self._bytes)
        plain = tensor.detach().cpu().to(dtype).contiguous()
        self._bytes.extend(ctypes.string_at(plain.data_ptr(), plain.nbytes))  # torch gives no bytes without numpy
        return {"tensor": str(dtype).removeprefix("torch."), "at": at, "shape": list(tensor.shape)}


Describe = Callable[[Any, Tensors], Described]


def refuse(found: str) -> NoReturn:
    """Says that the page cannot show this.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f"an anatomy page cannot show {found}",
        allowed="models that predict tokens, of the parts of foundation_core.model, with a byte-level tokenizer",
        fix="publish without the page",
    )


def describe_trunk(trunk: Transformer, tokens: int, tensors: Tensors) -> Described:
    """The blocks of a trunk, its last norm, and what its positions do to rows of up to so many tokens.

    Positions are tables of what their part gives for each place, so the page needs to know no kind of position.

    Raises:
        ConfigError: a part is none that the page knows.
    """
    position_1T = torch.arange(tokens)[None]
    turns = None if trunk.rotary is None else trunk.rotary(position_1T)
    bias = None
    if trunk.score_bias is not None:  # by distance: from the last token to the first, ..., from the first to the last
        bias_HTT = trunk.score_bias(position_1T, position_1T)[0]
        bias = torch.cat([bias_HTT[:, -1, :-1], bias_HTT[:, 0]], dim=-1)
    return {
        # One number for each pair of features; the sines of a pair's first one are negative.
        "cos": None if turns is None else exact(turns.cos[0, 0].chunk(2, dim=-1)[1], tensors),
        "sin": None if turns is None else exact(turns.sin[0, 0].chunk(2, dim=-1)[1], tensors),
        "bias": None if bias is None else exact(bias, tensors),
        "blocks": [_block(block, tensors) for block in trunk.blocks],  # type: ignore[arg-type]  # torch types no attribute of a module
        "norm": _by_type(NORMS, trunk.norm, tensors),
    }


def describe_stem(stem: nn.Module, tokens: int, tensors: Tensors) -> Described:
    """Where vectors come from, with the places of the first so many tokens.

    Raises:
        ConfigError: the stem is none that the page knows.
    """
    if type(stem) not in STEMS:
        refuse(f"the part {type(stem).__name__}")
    place: nn.Module | None = stem.place  # type: ignore[assignment]  # torch types no attribute of a module
    norm: nn.Module | None = stem.norm  # type: ignore[assignment]  # torch types no attribute of a module
    table = None if place is None else exact(place(torch.arange(tokens)[None])[0], tensors)
    return {
        **STEMS[type(stem)](stem, tensors),
        "place": table,
        "norm": _by_type(NORMS, nn.Identity() if norm is None else norm, tensors),
    }


def describe_head(head: nn.Module, tensors: Tensors) -> Described:
    """The layer that gives the logits.

    Raises:
        ConfigError: the head predicts no tokens, or passes its input through more than one layer.
    """
    if isinstance(head, TiedHead) and head.transform is not None:
        refuse("a head with a layer of its own")
    return _by_type(HEADS, head, tensors)


def exact(numbers: Tensor, tensors: Tensors) -> Described:
    """The place of numbers that are kept with all their digits."""
    return tensors.add(numbers, torch.float32)


def _by_type(table: Mapping[type, Describe], part: nn.Module, tensors: Tensors) -> Described:
    if type(part) not in table:
        refuse(f"the part {type(part).__name__}")
    return table[type(part)](part, tensors)


def _block(block: Block, tensors: Tensors) -> list[Described]:
    """The residuals of a block in the order in which they are computed."""
    return [
        {**_residual(part, tensors), "reads": reads}
        for part, reads in ((block.mix, "own"), (block.read, "memory"), (block.feed, "itself"))
        if part is not None
    ]


def _residual(part: Residual, tensors: Tensors) -> Described:
    if type(part) not in PLACES:
        refuse(f"the part {type(part).__name__}")
    return {
        "place": PLACES[type(part)],
        "norm": _by_type(NORMS, part.norm, tensors),
        "branch": _by_type(BRANCHES, part.branch, tensors),
    }


def _attention(part: Attention, tensors: Tensors) -> Described:
    layers = {name: _linear(getattr(part, name), tensors) for name in ("query", "key", "value", "out")}
    norms = {name: _by_type(NORMS, getattr(part, name), tensors) for name in ("query_norm", "key_norm")}
    heads = part.query.out_features // part.head_width
    return {"kind": "attention", "width": part.head_width, "heads": heads, **layers, **norms}


def _feed(part: FeedForward, tensors: Tensors) -> Described:
    layers = {name: _linear(layer, tensors) for name, layer in part.named_children() if isinstance(layer, nn.Linear)}
    return {"kind": FEEDS[type(part)], "activation": _activation(part.activation), **layers}


def _experts(part: Experts, tensors: Tensors) -> Described:
    return {
        "kind": "experts",
        "chosen": part.chosen,
        "router": _linear(part.router, tensors),
        "experts": [_by_type(BRANCHES, expert, tensors) for expert in part.experts],
    }


def _activation(part: nn.Module) -> str:
    if isinstance(part, nn.GELU):
        return "gelu" if part.approximate == "none" else "gelu_tanh"
    if type(part) not in ACTIVATIONS:
        refuse(f"the part {type(part).__name__}")
    return ACTIVATIONS[type(part)]


def _norm(part: nn.LayerNorm | nn.RMSNorm, tensors: Tensors) -> Described:
    weight, bias = part.weight, getattr(part, "bias", None)
    return {
        "kind": "layer" if isinstance(part, nn.LayerNorm) else "rms",
        "eps": torch.finfo(torch.float32).eps if part.eps is None else part.eps,
        "weight": None if weight is None else tensors.add(weight),
        "bias": None if bias is None else tensors.add(bias),
    }


def _linear(part: nn.Linear | TiedHead, tensors: Tensors) -> Described:
    return {"weight": tensors.add(part.weight), "bias": None if part.bias is None else tensors.add(part.bias)}


def _tokens(stem: TokenStem, tensors: Tensors) -> Described:
    runs = stem.runs
    return {
        "kind": "tokens",
        "embed": tensors.add(stem.embed.weight),  # type: ignore[arg-type]  # torch types no attribute of a module
        "runs": None
        if runs is None
        else {
            "lengths": list(runs.lengths),
            "rows": runs.rows,
            "tables": [tensors.add(table.weight) for table in runs.tables],  # type: ignore[arg-type]  # torch types no attribute of a module
        },
    }


def _patches(stem: PatchStem, tensors: Tensors) -> Described:
    if stem.class_token is not None:
        refuse("a token for the class before patches")
    return {"kind": "patches", "embed": _linear(stem.embed, tensors)}


PLACES: Mapping[type, str] = {PreNorm: "pre", PostNorm: "post", BranchNorm: "branch"}
ACTIVATIONS: Mapping[type, str] = {nn.ReLU: "relu", SquaredReLU: "relu2", nn.SiLU: "silu"}
FEEDS: Mapping[type, str] = {FeedForward: "feed", GatedFeedForward: "gated"}
STEMS: Mapping[type, Describe] = {TokenStem: _tokens, PatchStem: _patches}
NORMS: Mapping[type, Describe] = {
    nn.Identity: lambda part, tensors: {"kind": "none"},
    nn.LayerNorm: _norm,
    nn.RMSNorm: _norm,
}
BRANCHES: Mapping[type, Describe] = {
    Attention: _attention,
    FeedForward: _feed,
    GatedFeedForward: _feed,
    Experts: _experts,
}
HEADS: Mapping[type, Describe] = {
    VocabularyHead: lambda part, tensors: _linear(part.out, tensors),
    TiedHead: _linear,
}
