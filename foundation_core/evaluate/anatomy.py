"""The anatomy page: one HTML file in which a reader types a text and sees a decoder read it, number by number.

    model, tokenizer ──> description + tensors ──> page.html with its style and scripts inside ──> one file

The forward pass runs in the reader's browser, in plain JavaScript, from the weights inside the file; no network. A test
holds it to torch's logits in a real Chromium. Weights are kept in float16. Positions are kept as tables of what their
part gives for each place, so the page needs to know no kind of position.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from foundation_core.errors import ConfigError
from foundation_core.files import committed
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
from foundation_core.model.heads import TiedHead, VocabularyHead
from foundation_core.model.stems import TokenStem
from foundation_core.model.transformer import Model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_TOKENS = 32
"""Tokens of a text that the page shows; more are hard to see, and slow to compute in a browser."""

MOST_PARAMETERS = 16_000_000
"""Of a model that fits into a page; its file has then 43 MB."""

EXAMPLE = "import os\n\ndef read(path):\n    with open("

_PARTS = Path(__file__).with_name("anatomy_page")
_PLACES: dict[type, str] = {PreNorm: "pre", PostNorm: "post", BranchNorm: "branch"}
_ACTIVATIONS: dict[type, str] = {nn.ReLU: "relu", SquaredReLU: "relu2", nn.SiLU: "silu"}
_SHOWN = "a decoder of text with the parts of foundation_core.model.block and a byte-level byte-pair tokenizer"


def write_anatomy(path: Path, model: nn.Module, tokenizer: Tokenizer, example: str = EXAMPLE) -> Path:
    """The path of a page that shows how this model reads a text.

    Args:
        example: the text that it begins with.

    Raises:
        ConfigError: the page cannot compute such a model or tokenizer, or the model is too large for one.
    """
    if not isinstance(model, Model) or not isinstance(model.stem, TokenStem) or not model.trunk.causal:
        raise _refusal("a model that is no decoder of text")
    if model.stem.runs is not None:
        raise _refusal("vectors of runs of tokens")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > MOST_PARAMETERS:
        raise ConfigError(
            f"an anatomy page cannot hold {parameters:,} parameters",
            allowed=f"at most {MOST_PARAMETERS:,}",
            fix="make the page of a smaller model",
        )
    tensors = _Tensors()
    described = {
        "model": _model(model, tensors),
        "tokenizer": _tokenizer(tokenizer),
        "parameters": parameters,
        "heads": _heads(model),
        "example": example,
    }
    inside = {part.name: part.read_text() for part in _PARTS.iterdir()}
    inside["described"] = json.dumps(described, ensure_ascii=False).replace("<", "\\u003c")  # no tag ends in there
    inside["tensors"] = tensors.base64()
    page = re.sub(r"\{\{([\w.]+)\}\}", lambda place: inside[place[1]], inside["page.html"])
    with committed(path) as sink:
        sink.write(page.encode())
    return path


class _Tensors:
    """Tensors one behind the other in one buffer; each is described by its place there."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, tensor: Tensor, dtype: torch.dtype = torch.float16) -> dict[str, Any]:
        """The description of a tensor that is now in the buffer."""
        self._bytes.extend(bytes(-len(self._bytes) % 4))  # a view in the browser begins at a multiple of its size
        at = len(self._bytes)
        plain = tensor.detach().cpu().to(dtype).contiguous()
        self._bytes.extend(plain.view(torch.uint8).flatten().tolist() if plain.numel() else b"")
        return {"tensor": str(dtype).removeprefix("torch."), "at": at, "shape": list(tensor.shape)}

    def base64(self) -> str:
        """The buffer as text."""
        return base64.b64encode(self._bytes).decode()


def _model(model: Model, tensors: _Tensors) -> dict[str, Any]:
    stem, trunk = model.stem, model.trunk
    assert isinstance(stem, TokenStem)
    most = min(MOST_TOKENS, stem.context_tokens)
    position_1T = torch.arange(most)[None]
    turns = None if trunk.rotary is None else trunk.rotary(position_1T)
    bias_HT = None
    if trunk.score_bias is not None:  # by distance: that of the last token to each before it, the nearest first
        bias_HT = trunk.score_bias(position_1T[:, -1:], position_1T)[0, :, 0].flip(-1)

    def table(numbers: Tensor | None) -> dict[str, Any] | None:
        return None if numbers is None else tensors.add(numbers, torch.float32)

    return {
        "most_tokens": most,
        "head_width": _attention(_blocks(model)[0]).head_width,
        "embed": tensors.add(stem.embed.weight),  # type: ignore[arg-type]
        "place": table(None if stem.place is None else stem.place(position_1T)[0]),
        "stem_norm": None if stem.norm is None else _norm(stem.norm, tensors),
        # One number for each pair of features; the sines of a pair's first one are negative.
        "cos": table(None if turns is None else turns.cos[0, 0].chunk(2, dim=-1)[1]),
        "sin": table(None if turns is None else turns.sin[0, 0].chunk(2, dim=-1)[1]),
        "bias": table(bias_HT),
        "blocks": [_block(block, tensors) for block in _blocks(model)],
        "norm": _norm(trunk.norm, tensors),
        "head": _head(model.head, tensors),
    }


def _blocks(model: Model) -> list[Block]:
    return cast("list[Block]", list(model.trunk.blocks))


def _block(block: Block, tensors: _Tensors) -> dict[str, Any]:
    attention = _attention(block)
    layers = {name: _linear(getattr(attention, name), tensors) for name in ("query", "key", "value", "out")}
    norms = {name: _norm(getattr(attention, name), tensors) for name in ("query_norm", "key_norm")}
    return {
        "mix": {**_residual(block.mix, tensors), **layers, **norms},
        "feed": {**_residual(block.feed, tensors), **_feed(block.feed.branch, tensors)},
    }


def _feed(part: nn.Module, tensors: _Tensors) -> dict[str, Any]:
    if not isinstance(part, FeedForward):
        raise _refusal(f"the part {type(part).__name__}")
    return {
        "activation": _activation(part.activation),
        "up": _linear(part.up, tensors),
        "gate": _linear(part.gate, tensors) if isinstance(part, GatedFeedForward) else None,
        "out": _linear(part.out, tensors),
    }


def _attention(block: Block) -> Attention:
    attention = block.mix.branch
    if not isinstance(attention, Attention):
        raise _refusal(f"the part {type(attention).__name__}")
    return attention


def _heads(model: Model) -> int:
    attention = _attention(_blocks(model)[0])
    return attention.query.out_features // attention.head_width


def _residual(part: Residual, tensors: _Tensors) -> dict[str, Any]:
    if type(part) not in _PLACES:
        raise _refusal(f"the part {type(part).__name__}")
    return {"place": _PLACES[type(part)], "norm": _norm(part.norm, tensors)}


def _norm(part: nn.Module, tensors: _Tensors) -> dict[str, Any]:
    if isinstance(part, nn.Identity):
        return {"kind": "none"}
    if not isinstance(part, (nn.LayerNorm, nn.RMSNorm)):
        raise _refusal(f"the part {type(part).__name__}")
    bias = getattr(part, "bias", None)
    return {
        "kind": "layer" if isinstance(part, nn.LayerNorm) else "rms",
        "eps": torch.finfo(torch.float32).eps if part.eps is None else part.eps,
        "weight": None if part.weight is None else tensors.add(part.weight),
        "bias": None if bias is None else tensors.add(bias),
    }


def _linear(part: nn.Linear, tensors: _Tensors) -> dict[str, Any]:
    return {"weight": tensors.add(part.weight), "bias": None if part.bias is None else tensors.add(part.bias)}


def _activation(part: nn.Module) -> str:
    if isinstance(part, nn.GELU):
        return "gelu" if part.approximate == "none" else "gelu_tanh"
    if type(part) not in _ACTIVATIONS:
        raise _refusal(f"the part {type(part).__name__}")
    return _ACTIVATIONS[type(part)]


def _head(part: nn.Module, tensors: _Tensors) -> dict[str, Any]:
    if isinstance(part, VocabularyHead):
        return _linear(part.out, tensors)
    if not isinstance(part, TiedHead) or part.transform is not None:
        raise _refusal(f"the head {type(part).__name__}")
    return {"weight": tensors.add(part.weight), "bias": None if part.bias is None else tensors.add(part.bias)}


def _tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    body = json.loads(tokenizer.to_str())
    splits = (body["pre_tokenizer"] or {}).get("pretokenizers", [])
    kinds = [part["type"] for part in splits]
    if (
        body["model"]["type"] != "BPE"
        or kinds != ["Split", "ByteLevel"]
        or splits[1]["use_regex"]
        or body["normalizer"]
    ):
        raise _refusal("a tokenizer of another kind")
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    return {
        "pattern": splits[0]["pattern"]["Regex"],
        "tokens": [by_id[number] for number in sorted(by_id)],
        "merges": body["model"]["merges"],
    }


def _refusal(found: str) -> ConfigError:
    return ConfigError(f"an anatomy page cannot show {found}", allowed=_SHOWN, fix="publish without the page")
