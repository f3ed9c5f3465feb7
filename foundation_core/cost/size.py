"""How large a model will be, by arithmetic: what a plan needs to know in a blink, before torch is imported.

A family that says nothing here is built without memory and counted (`flops.counted`), which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec


class Size(NamedTuple):
    """Counts of a model.

    Args:
        parameters: all weights, biases and gains.
        active: those that a token passes or may look up: all but the experts that its router does not choose.
        multiplying: weights that take part in a product for every token: no norms, no looked-up embeddings.
        attention_width: features that the attention of all blocks mixes for a token.
        in_blocks: weights of the linear layers of all blocks but for routers: those that Muon moves.
    """

    parameters: int
    active: int
    multiplying: int
    attention_width: int
    in_blocks: int


def one_trunk(spec: ModelSpec, shape: SampleShape) -> Size:
    """The counts of a family with a token stem, one trunk and a head over the vocabulary."""
    trunk, vocabulary = spec.trunk, shape.vocabulary
    width, head_width = trunk.width, trunk.width // trunk.heads
    keys, depth, per_norm = head_width * (trunk.kv_heads or trunk.heads), trunk.depth, 1
    if trunk.norm == "layer" and trunk.bias:
        per_norm = 2
    hidden = trunk.hidden or (8 * round(width / 3) if trunk.feed == "swiglu" else 4 * width)
    up, experts = 2 if trunk.feed == "swiglu" else 1, max(1, trunk.experts)
    feed = (up + 1) * width * hidden
    attention, router = 2 * width * width + 2 * width * keys, width * trunk.experts
    norms = (2 * depth + (trunk.residual != "post")) * width + 2 * depth * head_width * trunk.qk_norm
    feed_biases = (up * hidden + width) * trunk.bias
    biases = depth * (2 * width + 2 * keys + experts * feed_biases) if trunk.bias else 0
    runs = len(spec.runs.lengths) * spec.runs.rows * width
    tables = (
        runs
        + (0 if spec.tie_embeddings else vocabulary * width)
        + {
            "learned": spec.context_tokens * width,
            "relative": RELATIVE_BUCKETS * trunk.heads,
        }.get(trunk.position, 0)
    )
    matrices = depth * (attention + router + experts * feed) + width * vocabulary
    idle = depth * (experts - min(experts, trunk.experts_per_token))
    parameters = matrices + norms * per_norm + biases + tables
    active, in_blocks = parameters - idle * (feed + feed_biases), depth * (attention + experts * feed)
    return Size(parameters, active, matrices - idle * feed, depth * width, in_blocks)


def size_told(parameters: int, active: int) -> str:
    """A count of parameters as people read it; those that a token passes too, if they are fewer."""
    some = f" ({_millions(active)} active)" if active < parameters else ""
    return _millions(parameters) + some


def _millions(count: int) -> str:
    return f"{count / 1e6:,.{2 if count < 1e9 else 1}f} M"


def training_flops(size: Size, context_tokens: int) -> int:
    """Floating-point operations of training on one token, forward and backward: `flops.FORMULA`."""
    return 6 * size.multiplying + 12 * size.attention_width * context_tokens


RELATIVE_BUCKETS = 32
"""Distances that a relative bias tells apart."""

SIZES: Mapping[str, Callable[[ModelSpec, SampleShape], Size]] = {
    "decoder": one_trunk,
    "encoder": one_trunk,
    "mixture": one_trunk,
}


def size_of(spec: ModelSpec, shape: SampleShape) -> Size:
    """The counts of a model of the spec's family."""
    if spec.family in SIZES:
        return SIZES[spec.family](spec, shape)
    from foundation_core.cost.flops import counted

    return counted(spec, shape)
