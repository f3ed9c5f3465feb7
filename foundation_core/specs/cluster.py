"""What a training may run on: cards, links, and where checkpoints go.

    card: memory, FLOP/s, bytes/s  --inside-->  the cards of a node  --between-->  the nodes  -->  store

`foundation plan --cluster` reads it. Nothing of it is part of a recipe: it decides no result.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from foundation_core.specs.base import Spec


class CardSpec(Spec):
    """What one rank computes on: a GPU, or the cores of a CPU that one worker has."""

    name: str = Field(min_length=1)
    """What it is called."""
    memory_bytes: PositiveInt
    """Memory that the rank has for itself."""
    reserved_bytes: int = Field(ge=0)
    """What a rank takes before it has a model: libraries, the device's context, buffers of communication."""
    peak_flops_per_second: dict[str, PositiveFloat]
    """The fastest products, by number format: bf16, float32 or both."""
    achievable_fraction: dict[str, float]
    """Share of that peak which a training's products reach, by number format."""
    memory_bytes_per_second: PositiveFloat
    """How fast its memory is read and written."""
    fused_attention: bool
    """Whether attention in bf16 keeps no matrix of T x T weights for the backward pass."""

    @model_validator(mode="after")
    def _formats_match(self) -> Self:
        allowed = {"bf16", "float32"}
        if not self.peak_flops_per_second or not self.peak_flops_per_second.keys() <= allowed:
            raise ValueError(
                f"peak_flops_per_second names {sorted(self.peak_flops_per_second)}; allowed: bf16, float32"
            )
        if self.achievable_fraction.keys() != self.peak_flops_per_second.keys():
            raise ValueError("achievable_fraction must name the same number formats as peak_flops_per_second")
        if not all(0 < share <= 1 for share in self.achievable_fraction.values()):
            raise ValueError(f"achievable_fraction must lie in (0, 1], found {self.achievable_fraction}")
        if self.reserved_bytes >= self.memory_bytes:
            raise ValueError(f"reserved_bytes={self.reserved_bytes} leave nothing of memory_bytes={self.memory_bytes}")
        return self


class LinkSpec(Spec):
    """What two ranks talk over."""

    bytes_per_second: PositiveFloat
    """What one card can send while it receives as much."""
    latency_seconds: float = Field(ge=0)
    """Of one message."""


class ClusterSpec(Spec):
    """The cards of a cluster, all alike, and what lies between them."""

    name: str = Field(min_length=1)
    """What it is called."""
    nodes: PositiveInt
    """Machines."""
    cards_per_node: PositiveInt
    """Cards, and so ranks, of each machine."""
    card: CardSpec
    """One of them."""
    inside: LinkSpec
    """Between two cards of a node."""
    between: LinkSpec
    """Between two nodes, for each of their cards."""
    exchange_overlaps: bool
    """Whether ranks exchange beside their products: a CPU's cores do one or the other."""
    store_bytes_per_second: PositiveFloat
    """How fast all nodes together write a checkpoint."""
    preemption_notice_seconds: float = Field(ge=0)
    """From the notice that a node will be taken away until it is; 0: there is none."""

    @property
    def ranks(self) -> int:
        """Cards of all nodes."""
        return self.nodes * self.cards_per_node

    @property
    def ring(self) -> LinkSpec:
        """What a ring over all cards comes to, for each of them.

        Between nodes there are as many rings as a node has cards, each over a link of its own with a part of the bytes.
        """
        if self.nodes == 1:
            return self.inside
        together = self.cards_per_node * self.between.bytes_per_second
        return LinkSpec(
            bytes_per_second=min(self.inside.bytes_per_second, together), latency_seconds=self.between.latency_seconds
        )
