"""A model laid out for writing on a CPU, one token of each row at a time."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial
from itertools import cycle
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_core.model.attention import Attention
from foundation_core.model.heads import TiedHead
from foundation_core.model.transformer import Model

_TRIED_BYTES, _TRIED_PRODUCTS, _ROUNDS = 64 << 20, 32, 5
"""What a choice of form is timed with: weights that no cache holds, unless they would be very many."""


def packed(model: Model, rows: int) -> Model:
    """A twin of the model that computes the same from its weights, in the form that is read fastest here.

    A step of writing multiplies each weight with few numbers, so its time is that of fetching weights. Queries, keys
    and values are one product; and oneDNN can be given a matrix that is sorted into its blocks. Whether that is faster
    than torch's own product depends on the processor. All products of a step, 6 layers of width 384 and a vocabulary of
    8192, torch's own and from blocks:

                                                 1 row           8 rows
        AVX-512 without AMX, 1 thread
            float32                              3.6, 2.5 ms     6.6, 2.8 ms
            bfloat16                             2.2, 1.0 ms     2.5, 1.5 ms
        AVX-512 with AMX, 2 threads
            float32                              1.8, 2.5 ms     4.3, 3.2 ms
            bfloat16                             3.1, 2.6 ms     3.1, 2.2 ms

    So both are timed, once in a process for each case. The twin is for a model in evaluation mode whose weights do not
    change meanwhile. Elsewhere than on a CPU it is the model itself.

    Args:
        rows: that are written side by side.
    """
    weight = next(model.parameters())
    if weight.device.type != "cpu":
        return model
    shapes = {tuple(part.weight.shape) for part in model.modules() if isinstance(part, nn.Linear)}
    about = 1 << (rows - 1).bit_length()  # numbers of rows that are near each other share a trial
    in_blocks = _can_sort(weight.dtype) and _blocks_are_faster(
        weight.dtype, about, tuple(sorted(shapes)), torch.get_num_threads()
    )
    return cast(Model, _twin(model, partial(Joint, rows=rows if in_blocks else None)))


def _can_sort(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and has products of this format on this processor.

    Its operators are torch's own affair and may have other names one day: a model then writes without them.
    """
    there = hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if not (there and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]  # torch has no types here
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
@torch.no_grad()
def _blocks_are_faster(dtype: torch.dtype, rows: int, shapes: tuple[tuple[int, int], ...], threads: int) -> bool:
    """Whether products from blocks take less time than torch's own, the best of some rounds of each.

    Args:
        shapes: of the weights.
        threads: that torch uses, for they decide too.
    """
    plain, blocks, read = list[Joint](), list[Joint](), 0
    for features, width in cycle(shapes):
        # a layer that draws no random numbers
        layer = cast(Any, nn.utils.skip_init)(nn.Linear, width, features, bias=False, dtype=dtype)
        layer.weight.fill_(1)
        plain.append(Joint([layer]))
        blocks.append(Joint([layer], rows=rows))
        read += layer.weight.nbytes
        if len(plain) >= len(shapes) and (read >= _TRIED_BYTES or len(plain) >= _TRIED_PRODUCTS):
            break
    x_of = {width: torch.ones(rows, 1, width, dtype=dtype) for _, width in shapes}
    best = [float("inf"), float("inf")]
    for _ in range(_ROUNDS):
        for side, products in enumerate((plain, blocks)):
            start = time.perf_counter()
            for product in products:
                product(x_of[product.layers[0].weight.shape[1]])
            best[side] = min(best[side], time.perf_counter() - start)
    return best[1] < best[0]


class Joint:
    """Layers that read the same, as one product.

    Args:
        rows: that the weight is sorted into blocks for, when it is first needed. None: it stays as it is.
    """

    def __init__(self, layers: Sequence[nn.Linear | TiedHead], rows: int | None = None) -> None:
        self.layers, self.rows = layers, rows
        self.features = [len(layer.weight) for layer in layers]

    @cached_property
    def weight(self) -> Tensor:
        """The layers' weights below each other; in blocks it is of a kind that oneDNN alone can read."""
        weights: list[Tensor] = [layer.weight for layer in self.layers]
        joint = weights[0] if len(weights) == 1 else torch.cat(weights)
        return joint if self.rows is None else cast(Tensor, torch.ops.mkldnn._reorder_linear_weight(joint, self.rows))

    @cached_property
    def bias(self) -> Tensor | None:
        """The layers' biases; all have one or none has."""
        biases: list[Tensor] = [layer.bias for layer in self.layers if layer.bias is not None]
        return torch.cat(biases) if biases else None

    def __call__(self, x: Tensor) -> Tensor:
        """What the layers make of it, side by side."""
        if self.rows is None:
            return F.linear(x, self.weight, self.bias)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return y


def _twin(part: nn.Module, product: Callable[[Sequence[nn.Linear | TiedHead]], Joint]) -> nn.Module:
    if isinstance(part, nn.Dropout):
        return nn.Identity()  # so it is when nothing is learned, at a quarter of the time
    twin: Any = copy.copy(part)
    twin._modules = {name: None if child is None else _twin(child, product) for name, child in part._modules.items()}
    if isinstance(part, nn.Linear):
        twin.forward = product([part])
    if isinstance(part, TiedHead):
        twin.match = product([part])
    if isinstance(part, Attention):
        joint = product([part.query, part.key, part.value])
        twin.project = partial(_project, joint, (twin.query, twin.key, twin.value))
    return cast(nn.Module, twin)


def _project(joint: Joint, layers: Sequence[nn.Module], x_BTD: Tensor, source_BSD: Tensor) -> Sequence[Tensor]:
    """Queries, keys and values, by one product where a row reads itself."""
    if source_BSD is x_BTD:
        return torch.split(joint(x_BTD), joint.features, dim=-1)
    query, key, value = layers
    return query(x_BTD), key(source_BSD), value(source_BSD)
