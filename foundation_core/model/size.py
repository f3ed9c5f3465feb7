"""How large a model will be, by arithmetic: what a plan needs to know in a blink, before torch is imported.

A family that says nothing here is built without memory and counted (`flops.counted`), which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from foundation_core.specs import ModelSpec


class Size(NamedTuple):
    """Counts of a model.

    Args:
        parameters: all weights, biases and gains.
        multiplying: weights that take part in a product for every token: no norms, no looked-up embeddings.
        attention_width: features that the attention of all blocks mixes for a token.
    """

    parameters: int
    multiplying: int
    attention_width: int


def decoder(spec: ModelSpec, vocabulary: int) -> Size:
    """The counts of the decoder family."""
    trunk = spec.trunk
    width, keys = trunk.width, trunk.width // trunk.heads * (trunk.kv_heads or trunk.heads)
    hidden = trunk.hidden or (8 * round(width / 3) if trunk.feed == "swiglu" else 4 * width)
    up = 2 if trunk.feed == "swiglu" else 1
    matrices = trunk.depth * (2 * width * width + 2 * width * keys + (up + 1) * width * hidden) + width * vocabulary
    vectors = (2 * trunk.depth + 1) * width * (2 if trunk.norm == "layer" and trunk.bias else 1)
    if trunk.bias:
        vectors += trunk.depth * (2 * width + 2 * keys + up * hidden + width)
    tables = (0 if spec.tie_embeddings else vocabulary * width) + (
        spec.context_tokens * width if trunk.position == "learned" else 0
    )
    return Size(matrices + vectors + tables, matrices, trunk.depth * width)


def training_flops(size: Size, context_tokens: int) -> int:
    """Floating-point operations of training on one token, forward and backward: `flops.FORMULA`."""
    return 6 * size.multiplying + 12 * size.attention_width * context_tokens


SIZES: Mapping[str, Callable[[ModelSpec, int], Size]] = {"decoder": decoder}


def size_of(spec: ModelSpec, vocabulary: int) -> Size:
    """The counts of a model of the spec's family."""
    if spec.family in SIZES:
        return SIZES[spec.family](spec, vocabulary)
    from foundation_core.model.flops import counted

    return counted(spec, vocabulary)
