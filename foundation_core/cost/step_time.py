"""How long one optimizer step of a cluster takes, by a stated model.

    products   FLOPs / (peak x achievable fraction)
    memory     + bytes that activations and the update move / bytes a second
    exchange   + bytes over the ring's slowest part / its bytes a second + a latency for each call and hop

Products and memory add up: while a matrix is multiplied little else happens, and the other way round. The exchange is a
ring's: N ranks reduce and scatter, or gather, M bytes by sending M (N - 1) / N each (Patarasuk and Yuan 2009); latency
is that of a tree, log2 N hops a call. ZeRO 0 to 2 send twice the gradients' bytes a step, ZeRO 3 the weights twice and
the gradients once for each micro-batch (Rajbhandari et al. 2020, section 7). A step waits for the exchange of ZeRO 0 to
2; DeepSpeed overlaps that of ZeRO 3 (`overlap_comm`, its default there): what the products hide costs nothing, where
the cluster's links work by themselves.
"""

from __future__ import annotations

from math import ceil, log2
from typing import NamedTuple

from foundation_core.cost.memory import REDUCED_AT_A_TIME, Memory
from foundation_core.cost.size import Size, training_flops
from foundation_core.specs import PretrainSpec
from foundation_core.specs.cluster import ClusterSpec

MOVED_PER_KEPT_BYTE = 4
"""What a forward pass keeps is written once and read once, and so is its gradient."""


class StepTime(NamedTuple):
    """Seconds of one step.

    Args:
        products: of matrices.
        memory: moving the update's numbers and the activations.
        exchange: between the ranks, all of it.
        waiting: the part of the exchange that nothing hides.
    """

    products: float
    memory: float
    exchange: float
    waiting: float

    @property
    def total(self) -> float:
        """What passes on the clock."""
        return self.products + self.memory + self.waiting


def step_time(
    cluster: ClusterSpec, spec: PretrainSpec, size: Size, memory: Memory, places: int, *, recomputed: bool = False
) -> StepTime:
    """How long a step takes on all cards of a cluster.

    Args:
        spec: workers are the cluster's ranks; its precision is one that the card has a peak for.
        memory: of the same training, as `memory_of` says it without recomputation.
        places: of one row.
    """
    card, ranks = cluster.card, cluster.ranks
    rows = ceil(spec.batch_rows / ranks)  # of the fullest rank, for which the others wait
    passes = ceil(rows / spec.micro_batch_rows)
    again = 4 / 3 if recomputed else 1.0  # one more forward pass is a third of forward and backward
    flops = again * rows * places * training_flops(size, places)
    speed = card.peak_flops_per_second[spec.precision] * card.achievable_fraction[spec.precision]
    products = flops / speed

    kept = (memory.activations + memory.logits) * rows / min(rows, spec.micro_batch_rows)
    moved = MOVED_PER_KEPT_BYTE * kept + 2 * memory.optimizer + 3 * memory.gradients + memory.weights
    exchange = _exchange_seconds(cluster, spec, size.parameters, passes)
    overlaps = cluster.exchange_overlaps and spec.zero_stage == 3 and spec.engine == "deepspeed"
    waiting = max(0.0, exchange - products) if overlaps else exchange
    return StepTime(products, moved / card.memory_bytes_per_second, exchange, waiting)


def _exchange_seconds(cluster: ClusterSpec, spec: PretrainSpec, parameters: int, passes: int) -> float:
    ranks, link = cluster.ranks, cluster.ring
    if ranks == 1:
        return 0.0
    if spec.engine == "deepspeed" and spec.zero_stage == 3:
        times, calls = 3 * passes, 3 * passes * (spec.model.trunk.depth + 2)
    else:
        times, calls = 2, 2 * ceil(parameters / REDUCED_AT_A_TIME)
    number = 2 if spec.precision == "bf16" and spec.engine == "deepspeed" else 4
    sent = times * number * parameters * (ranks - 1) / ranks
    return sent / link.bytes_per_second + calls * ceil(log2(ranks)) * link.latency_seconds
