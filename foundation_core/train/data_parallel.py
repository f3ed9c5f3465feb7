"""The plain engine on several ranks: each holds the whole model, and gradients are added up while they are made.

    backward of the last micro-batch:   ... layer 2   layer 1   embedding
    buckets of gradients, in order:          [bucket 0]   [bucket 1]
    exchange of each, once it is full:                [ 0 + 0 ]  [ 1 + 1 ]  -> clip, update, zero

Every parameter's gradient is a view of a bucket, so nothing is copied; one that no row of a rank has used counts as
zeros, and buckets leave in one order on all ranks, whatever each of them has used.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.fragments import Fragment, share_out
from foundation_core.train.ranks import GroupOfRanks

BUCKET_BYTES = 25_000_000
"""A bucket is full with the parameter that reaches this: large enough that its exchange is bound by the links, and
small enough that most of a model's gradients travel while others are still made (DistributedDataParallel's default)."""


class _Bucket:
    """Neighbouring parameters, whose gradients lie in one tensor and are exchanged at once."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        size = sum(parameter.numel() for parameter in parameters)
        self.gradient = torch.zeros(size, dtype=parameters[0].dtype, device=parameters[0].device)
        self.missing = len(parameters)

    def clear(self) -> None:
        """Forget the gradients, and have those of the next step land here."""
        self.gradient.zero_()
        self.missing = len(self.parameters)
        parts = torch.split(self.gradient, [parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)


class DataParallelEngine(GroupOfRanks, TorchEngine):
    """One rank of several; the process group exists already."""

    def __init__(self, module: nn.Module, request: EngineRequest) -> None:
        TorchEngine.__init__(self, module, request)
        GroupOfRanks.__init__(self)
        for value in module.state_dict().values():
            dist.broadcast(value, src=0)
        self._buckets = list(_buckets(module))
        self._exchanges: list[dist.Work] = []
        self._last = False
        for bucket in self._buckets:
            bucket.clear()
            for parameter in bucket.parameters:
                hook = partial(self._made, bucket)
                parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate gradients; ranks exchange them during that of the last micro-batch."""
        self._last = last
        super().backward(loss, last=last)
        if last:
            while len(self._exchanges) < len(self._buckets):  # the rest has parameters that nothing here has used
                self._exchange()
            for exchange in self._exchanges:
                exchange.wait()
            self._exchanges.clear()

    def discard(self) -> None:
        """Forget the gradients."""
        for bucket in self._buckets:
            bucket.clear()

    def fragments(self) -> Iterator[Fragment]:
        """A share of what every rank holds."""
        return share_out(list(super().fragments()), self.rank, self.world)

    def _made(self, bucket: _Bucket, parameter: Tensor) -> None:
        """A parameter's gradient of the micro-batch is there."""
        if not self._last:
            return
        bucket.missing -= 1
        while len(self._exchanges) < len(self._buckets) and not self._buckets[len(self._exchanges)].missing:
            self._exchange()

    def _exchange(self) -> None:
        """Start adding up the next bucket."""
        work = dist.all_reduce(self._buckets[len(self._exchanges)].gradient, async_op=True)
        assert work is not None
        self._exchanges.append(work)


def _buckets(module: nn.Module) -> Iterator[_Bucket]:
    """Of the parameters that learn, the last first, as their gradients are made."""
    gathered: list[nn.Parameter] = []
    for parameter in reversed([p for p in module.parameters() if p.requires_grad]):
        gathered.append(parameter)
        if sum(p.numel() * p.element_size() for p in gathered) >= BUCKET_BYTES:
            yield _Bucket(gathered)
            gathered = []
    if gathered:
        yield _Bucket(gathered)
