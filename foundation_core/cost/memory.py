"""What a rank holds while it trains, by arithmetic: state by what is sharded, activations by what is saved.

    weights | gradients | optimizer        by engine, ZeRO stage, number format and ranks
    activations | logits                   by micro-batch, blocks and attention's kernel
    buffers                                what is gathered and reduced at a time

Shares of the state: Rajbhandari et al. 2020, ZeRO, section 5. Activations: the tensors that autograd saves in the
blocks of `foundation_core/model`, counted one by one; `python -m benchmarks.forecast` holds them to trainings.
"""

from __future__ import annotations

from typing import NamedTuple

from foundation_core.cost.size import Size
from foundation_core.specs import PretrainSpec, TrunkSpec

LOGITS_AT_A_TIME_TOKENS = 512
"""Tokens whose logits have gradients at a time: see `objectives.language`."""
REDUCED_AT_A_TIME, GATHERED_AT_A_TIME, NEVER_SHARDED = 500_000_000, 1_000_000_000, 100_000
"""Numbers in DeepSpeed's bucket, parameters that ZeRO 3 keeps gathered at the most, size from which on it shards
one. Defaults of `reduce_bucket_size`, `stage3_max_live_parameters`, `stage3_param_persistence_threshold`."""


class Memory(NamedTuple):
    """Bytes of one rank.

    Args:
        weights: in the format that products read.
        gradients: that are there when the backward pass is over.
        optimizer: averages, and the float32 copy of the weights where there is one; on a card none of it if it is
            offloaded.
        activations: what the forward pass of a micro-batch keeps.
        logits: probabilities of the micro-batch's labels, and the gradients of one piece.
        buffers: parameters that are gathered and gradients that are reduced at a time.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    buffers: int

    @property
    def state(self) -> int:
        """Weights, gradients and optimizer."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def memory_of(
    spec: PretrainSpec, size: Size, vocabulary: int, places: int, *, fused_attention: bool, recomputed: bool = False
) -> Memory:
    """What a rank of a training holds.

    Args:
        spec: its engine, ZeRO stage, workers, precision and micro-batch decide. `auto` counts as float32.
        places: of one row: tokens, and patches.
        fused_attention: whether attention in bf16 keeps no matrix of weights, and in float32 none where it drops some;
            in float32 that drops none it never does.
        recomputed: whether blocks keep their input alone and compute the rest again in the backward pass.
    """
    weights, gradients, optimizer = state_shares(spec, size, _never_sharded(spec.model.trunk))
    tokens = min(spec.micro_batch_rows, -(-spec.batch_rows // spec.workers)) * places
    blocks, rest = _saved(spec, places, fused_attention)
    depth, autocasts = spec.model.trunk.depth, spec.precision == "bf16" and spec.engine == "torch"
    kept = depth * blocks + rest
    if recomputed:  # Chen et al. 2016: the inputs of all blocks, and all of the one that is at work
        kept = depth * _stream_bytes(spec) + blocks + rest
    copies = 2 * _multiplied(spec.model.trunk, size) if autocasts else 0  # made once, and read by the backward pass
    logits = 4 * tokens * vocabulary + 8 * LOGITS_AT_A_TIME_TOKENS * vocabulary
    buffers = _buffer_bytes(spec, size.parameters)
    return Memory(weights, gradients, optimizer, tokens * kept + copies, logits, buffers)


def state_shares(spec: PretrainSpec, size: Size, never_sharded: int = 0) -> tuple[int, int, int]:
    """Bytes of weights, gradients and optimizer of one rank when the backward pass is over, wherever they are.

    DeepSpeed keeps a float32 copy of the weights from ZeRO 1 on and in bf16; the torch engine's weights are float32.
    ZeRO 1 and 2 both hold a share of the gradients once they are reduced; before, see `Memory.buffers`.
    """
    parameters, averages = size.parameters, _average_bytes(spec, size)
    if spec.engine == "torch":
        return 4 * parameters, 4 * parameters, averages
    number = _number_bytes(spec)
    stage, ranks = spec.zero_stage, spec.workers
    has_copy = stage >= 1 or spec.precision == "bf16"
    weights = number * (parameters - never_sharded) / (ranks if stage == 3 else 1) + number * never_sharded
    gradients = number * parameters / (ranks if stage >= 1 else 1)
    optimizer = (averages + 4 * parameters * has_copy) / (ranks if stage >= 1 else 1)
    return round(weights), round(gradients), round(optimizer)


def checkpoint_bytes(spec: PretrainSpec, size: Size) -> int:
    """What all ranks together write into a checkpoint: float32 weights once, and the optimizer's averages.

    Whatever the engine and the number format: a copy of the weights is written as the weights (decision 28).
    """
    return 4 * size.parameters + _average_bytes(spec, size)


def _average_bytes(spec: PretrainSpec, size: Size) -> int:
    """Of the optimizer's float32 averages: two of each parameter, or one of those that Muon moves."""
    return 8 * size.parameters - 4 * size.in_blocks * (spec.optimizer.kind == "muon")


def _number_bytes(spec: PretrainSpec) -> int:
    return 2 if spec.precision == "bf16" else 4


def _never_sharded(trunk: TrunkSpec) -> int:
    """Parameters in matrices of the blocks that are too small for ZeRO 3 to shard."""
    width, keys, hidden = trunk.width, _key_width(trunk), _hidden(trunk)
    matrices = [(2, width * width), (2, width * keys), (3 if trunk.feed == "swiglu" else 2, width * hidden)]
    return trunk.depth * sum(count * numbers for count, numbers in matrices if numbers < NEVER_SHARDED)


def _buffer_bytes(spec: PretrainSpec, parameters: int) -> int:
    """What is reduced and gathered at a time; pages that nobody touches are not counted.

    ZeRO 0 and 1 hold whole gradients until the backward pass is over, ZeRO 2 and 3 a bucket of them.
    """
    number = _number_bytes(spec)
    if spec.engine == "torch":
        return 0
    if spec.zero_stage <= 1:
        return round(number * parameters * (1 - 1 / spec.workers)) if spec.zero_stage else 0
    bucket = number * min(parameters, REDUCED_AT_A_TIME)
    gathered = number * min(parameters, GATHERED_AT_A_TIME) if spec.zero_stage == 3 and spec.workers > 1 else 0
    return bucket + gathered


def _saved(spec: PretrainSpec, places: int, fused_attention: bool) -> tuple[int, int]:
    """Bytes that a block saves for one token, and those that stem, last norm and rotation save.

    float32: the inputs of both norms and what they normalised, their outputs, rotated queries and keys, values, what
    attention found, the feed-forward layer's hidden features before and after the activation; and the mask of packed
    documents, which torch writes out as numbers. bf16: the same, with norms that compute in float32. Attention that
    drops weights and is not fused keeps three matrices of each head: the weights, what was drawn, and their product.
    Of experts, each that a token passes has its own hidden features, a copy of what it reads, and what it makes.
    """
    trunk = spec.model.trunk
    width, keys, hidden = trunk.width, _key_width(trunk), (4 if trunk.feed == "swiglu" else 2) * _hidden(trunk)
    if trunk.experts:
        hidden = trunk.experts_per_token * (hidden + 2 * width)
    of_heads = 2.5 * (width + keys) if trunk.qk_norm else 0.0
    drops = trunk.attention_dropout > 0
    if spec.precision != "bf16":
        mask = 3 * trunk.heads * places if drops and not fused_attention else places
        return round(4 * (8 * width + 2 * keys + hidden + of_heads + mask)), 16 * width
    matrix = 0 if fused_attention else (1 + 2 * (3 if drops else 1) * trunk.heads) * places
    autocast = 6 * width if spec.engine == "torch" else 0  # its stream stays in float32
    return round(26 * width + 4 * keys + 2 * hidden + 2.5 * of_heads + matrix + autocast), 10 * width


def _stream_bytes(spec: PretrainSpec) -> int:
    """Bytes of one token on the residual stream."""
    return (2 if spec.precision == "bf16" and spec.engine != "torch" else 4) * spec.model.trunk.width


def _key_width(trunk: TrunkSpec) -> int:
    return trunk.width // trunk.heads * (trunk.kv_heads or trunk.heads)


def _multiplied(trunk: TrunkSpec, size: Size) -> int:
    """Weights that take part in a product for some token: those of all experts."""
    up = 3 if trunk.feed == "swiglu" else 2
    idle = max(0, trunk.experts - trunk.experts_per_token)
    return size.multiplying + trunk.depth * idle * up * trunk.width * _hidden(trunk)


def _hidden(trunk: TrunkSpec) -> int:
    """Features between the layers of one feed-forward layer."""
    return trunk.hidden or (8 * round(trunk.width / 3) if trunk.feed == "swiglu" else 4 * trunk.width)
