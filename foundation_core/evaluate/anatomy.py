"""The anatomy page: one HTML file in which a reader types a text and sees a model read it, number by number.

    model ──> rows of parts as data ──┐
    tokenizer ──> patterns, merges ───┴──> page.html with its style, scripts and tensors inside ──> one file

The forward pass runs in the reader's browser, in plain JavaScript, from the weights inside the file; no network. A test
holds it to torch's logits in a real Chromium. Weights are kept in float16.

A model is a list of rows, in the order in which they are computed: one of a decoder or an encoder, a source and a
target of an encoder-decoder. Each row says what its tokens may read, what the reader may hide in it, and its parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from foundation_core.errors import ConfigError
from foundation_core.evaluate.anatomy_parts import (
    Described,
    Tensors,
    describe_head,
    describe_stem,
    describe_trunk,
    exact,
    refuse,
)
from foundation_core.evaluate.anatomy_tokenizer import describe_tokenizer
from foundation_core.files import committed
from foundation_core.model.stems import PatchStem, TokenStem, patches_of
from foundation_core.model.transformer import DualEncoder, EncoderDecoder, MaskedAutoencoder, Model, Transformer
from foundation_core.objectives.special import special_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from foundation_core.objectives.base import SpecialTokens

MOST_TOKENS = 32
"""Tokens of a text that the page shows; more are hard to see, and slow to compute in a browser."""

MOST_PATCHES = 100
"""Of a sample that the page shows: a part of it cannot be read alone."""

MOST_PARAMETERS = 16_000_000
"""Of a model that fits into a page; its file has then 43 MB."""

EXAMPLE_TOKENS = 24
"""Of a text that a page begins with: a reader wants room for more."""

EXAMPLE = "import os\n\ndef read(path):\n    with open("

_PARTS = Path(__file__).with_name("anatomy_page")
_REACHES: Mapping[str, str] = {"prefix": "prefix"}
"""What the tokens of a causal trunk may read, by the objective that taught it; the others: what is before them."""


class Reads(NamedTuple):
    """What the page begins with, and how the model was taught to read it.

    Args:
        text: an example; of an encoder-decoder, its source.
        objective: of the pretraining.
        values: (N, C, H, W) samples, of a model that reads values; its source is one of these.
    """

    text: str = EXAMPLE
    objective: str = "next_token"
    values: Tensor | None = None


USUAL = Reads()


class _Row(NamedTuple):
    """One row of tokens or patches, with all that computes it.

    Args:
        begins: tokens that stand before what the reader types.
        hides: ids that a hidden token becomes, and whether a run of them becomes one; no ids: nothing can be hidden.
    """

    name: str
    stem: nn.Module
    trunk: Transformer
    head: nn.Module | None
    begins: Sequence[int] = ()
    hides: tuple[Sequence[int], bool] = ((), False)


def write_anatomy(path: Path, model: nn.Module, tokenizer: Tokenizer, reads: Reads = USUAL) -> Path:
    """The path of a page that shows how this model reads a text.

    Raises:
        ConfigError: the page cannot compute such a model or tokenizer, or the model is too large for one.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if type(model) not in _ROWS:
        refuse(_UNSHOWN.get(type(model), f"the model {type(model).__name__}"))
    if parameters > MOST_PARAMETERS:
        raise ConfigError(
            f"an anatomy page cannot hold {parameters:,} parameters",
            allowed=f"at most {MOST_PARAMETERS:,}",
            fix="make the page of a smaller model",
        )
    tensors = Tensors()
    described = {
        "rows": [_row(row, reads, tensors) for row in _ROWS[type(model)](model, special_tokens(tokenizer))],
        "tokenizer": describe_tokenizer(tokenizer),
        "parameters": parameters,
        "example": reads.text,
    }
    inside = {part.name: part.read_text() for part in _PARTS.iterdir()}
    inside["described"] = json.dumps(described, ensure_ascii=False).replace("<", "\\u003c")  # no tag ends in there
    inside["tensors"] = tensors.base64()
    page = re.sub(r"\{\{([\w.]+)\}\}", lambda place: inside[place[1]], inside["page.html"])
    with committed(path) as sink:
        sink.write(page.encode())
    return path


def _alone(model: Model, special: SpecialTokens) -> list[_Row]:
    """A decoder's or an encoder's only row: what is hidden is what an encoder is asked."""
    mask = () if model.trunk.causal or special.mask is None else (special.mask,)
    return [_Row("text", model.stem, model.trunk, model.head, hides=(mask, False))]


def _source_and_target(model: EncoderDecoder, special: SpecialTokens) -> list[_Row]:
    """An encoder-decoder's rows: of a text, spans can be hidden behind sentinels, for the target to tell."""
    decoder, begins = model.decoder, () if special.start is None else (special.start,)
    sentinels = special.sentinels if isinstance(model.stem, TokenStem) else ()
    return [
        _Row("source", model.stem, model.trunk, None, hides=(sentinels, True)),
        _Row("target", decoder.stem, decoder.trunk, decoder.head, begins),
    ]


_ROWS: Mapping[type, Callable[[Any, SpecialTokens], list[_Row]]] = {
    Model: _alone,
    EncoderDecoder: _source_and_target,
}
_UNSHOWN: Mapping[type, str] = {
    MaskedAutoencoder: "a model that reads no text and predicts no tokens",
    DualEncoder: "a model that places texts and values in one space and predicts no tokens",
}


def _row(row: _Row, reads: Reads, tensors: Tensors) -> Described:
    context: int = row.stem.context_tokens  # type: ignore[assignment]  # torch types no attribute of a module
    samples = _samples(row.stem, reads.values, tensors)
    most = context if samples else min(MOST_TOKENS, context)
    return {
        "name": row.name,
        "most_tokens": most,
        "reach": _REACHES.get(reads.objective, "causal") if row.trunk.causal else "both",
        "begins": list(row.begins),
        "hides": {"ids": list(row.hides[0]), "spans": row.hides[1]},
        "samples": samples,
        "stem": describe_stem(row.stem, most, tensors),
        **describe_trunk(row.trunk, most, tensors),
        "head": None if row.head is None else describe_head(row.head, tensors),
    }


def _samples(stem: nn.Module, values: Tensor | None, tensors: Tensors) -> list[Described]:
    """The patches of each sample, (P, C x h x w) each, with the rows of the grid that they lie on; none of a text."""
    if not isinstance(stem, PatchStem):
        return []
    if values is None or not len(values):
        refuse("a model of values without a sample of them")
    if stem.context_tokens > MOST_PATCHES:
        refuse(f"samples of {stem.context_tokens} patches (at most {MOST_PATCHES})")
    channels, rows = values.shape[1], values.shape[2] // stem.patch[0]
    grid = {"channels": channels, "grid_rows": rows, "patch": list(stem.patch)}
    return [{"patches": exact(patches, tensors), **grid} for patches in patches_of(values, stem.patch)]
