"""Attention of packed rows without a mask in memory: what a GPU needs to stay on its fastest kernel.

    (B, T) segments --once a step--> where documents end, or which blocks read which --> every block's kernel

With a mask in memory torch's `scaled_dot_product_attention` leaves FlashAttention for a kernel that reads T x T numbers
a head. Three ways are known, and the best that this torch and this card have is taken:

    varlen   FlashAttention over documents end to end (torch.nn.attention.varlen): reads nothing of other documents
    flex     FlexAttention, compiled, that skips blocks of tokens that read nothing of each other
    mask     what `foundation_core.model` does by itself

The parts of a model are changed in place: weights and names stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_core.errors import SetupError
from foundation_core.model.attention import Attention, Cache, Memory, Reading, Store
from foundation_core.model.layout import AttentionMask, Layout
from foundation_core.model.positions import rotate
from foundation_core.model.transformer import Transformer

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q_BHTE, k_BKTE, v_BKTE) -> y_BHTE."""
MakeKernel = Callable[[Tensor], Kernel]
"""(B, T) segments -> the kernel of all blocks."""


@dataclass(frozen=True)
class PackedMask(AttentionMask):
    """A mask that is no tensor: the kernel knows who reads whom."""

    kernel: Kernel | None = None


class PackedAttention(Attention):
    """Attention whose mask brings its kernel."""

    def forward(self, x_BTD: Tensor, reading: Reading, store: Store | None = None) -> Tensor:
        """(B, T, D): for each token what it read."""
        assert isinstance(reading.mask, PackedMask), "a packed trunk makes it"
        assert reading.mask.kernel is not None, "and never without a kernel"
        q_BTD, k_BTD, v_BTD = self.project(x_BTD, x_BTD)
        q_BHTE = rotate(self.query_norm(self._heads(q_BTD)), reading.rotation)
        k_BKTE = rotate(self.key_norm(self._heads(k_BTD)), reading.rotation)
        y_BHTE = reading.mask.kernel(q_BHTE, k_BKTE, self._heads(v_BTD))
        y_BTD: Tensor = self.out(y_BHTE.transpose(1, 2).flatten(2))
        return y_BTD


class PackedTransformer(Transformer):
    """A causal trunk of packed rows."""

    make_kernel: MakeKernel

    def forward(
        self, x_BTD: Tensor, layout: Layout, cache: Cache | None = None, memory: Memory | None = None
    ) -> Tensor:
        """(B, T, D): what each token has become."""
        assert layout.segment is not None, "rows are packed"
        mask = PackedMask(kernel=self.make_kernel(layout.segment))
        own = Reading(mask, None if self.rotary is None else self.rotary(layout.position))
        for block in self.blocks:
            x_BTD = block(x_BTD, own)
        x_BTD = self.norm(x_BTD)
        return x_BTD


def read_packed(model: nn.Module, make_kernel: MakeKernel) -> None:
    """Let a decoder's trunk and blocks use a kernel, in place.

    Raises:
        SetupError: the trunk does more than read packed rows from left to right.
    """
    trunk = model.trunk
    if type(trunk) is not Transformer or not trunk.causal or trunk.score_bias is not None:
        raise SetupError("this trunk has masks that the kernels for packed rows do not know", fix="use the way `mask`")
    trunk.__class__ = PackedTransformer
    trunk.make_kernel = make_kernel
    for part in trunk.modules():
        if type(part) is Attention:
            part.__class__ = PackedAttention


def document_ends(segment_BT: Tensor) -> Tensor:
    """(N + 1,) int32: where the documents of all rows, end to end, begin, and the last one ends. Padding is one too."""
    begins = F.pad(segment_BT[:, 1:] != segment_BT[:, :-1], (1, 0), value=True).flatten()
    first = begins.nonzero().squeeze(1)
    return torch.cat([first, first.new_tensor([begins.numel()])]).int()


def varlen(segment_BT: Tensor) -> Kernel:
    """FlashAttention over documents end to end."""
    from torch.nn.attention.varlen import varlen_attn

    ends, (B, T) = document_ends(segment_BT), segment_BT.shape

    def kernel(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2).flatten(0, 1).to(torch.bfloat16) for x in (q_BHTE, k_BKTE, v_BKTE))
        grouped = q.shape[1] != k.shape[1]
        y: Any = varlen_attn(q, k, v, ends, ends, T, T, window_size=(-1, 0), enable_gqa=grouped)
        found: Tensor = y.unflatten(0, (B, T)).transpose(1, 2)
        return found

    return kernel


def flex(segment_BT: Tensor, compiled: bool = True) -> Kernel:
    """FlexAttention: the same rule as a function of two places."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    B, T = segment_BT.shape

    def reads(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (segment_BT[b, q] == segment_BT[b, k]) & (k <= q)

    blocks = create_block_mask(reads, B, None, T, T, device=segment_BT.device)
    attend = _compiled_flex() if compiled else flex_attention

    def kernel(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
        grouped = q_BHTE.shape[1] != k_BKTE.shape[1]
        found: Tensor = attend(q_BHTE, k_BKTE, v_BKTE.to(k_BKTE.dtype), block_mask=blocks, enable_gqa=grouped)
        return found

    return kernel


WAYS: dict[str, MakeKernel] = {"varlen": varlen, "flex": flex}
"""The kernels, the best first."""


@cache
def _compiled_flex() -> Any:
    """One compiled function for all steps: only the blocks change."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def works(way: str, device: torch.device) -> str:
    """Why a way does not give what the definition gives on this device; empty if it does. Forward and backward."""
    from foundation_core.model.attention import attend

    draw = torch.Generator().manual_seed(0)
    shape, segment = (2, 4, 256, 64), torch.arange(256).div(100, rounding_mode="floor").expand(2, -1).contiguous()
    q, k, v = (torch.randn(shape, generator=draw).to(device, torch.bfloat16).requires_grad_() for _ in range(3))
    segment = segment.to(device)
    allowed = (segment[:, None, :, None] == segment[:, None, None, :]) & torch.ones(
        256, 256, device=device
    ).tril().bool()
    expected = attend(q.float(), k.float(), v.float(), allowed)
    try:
        found = WAYS[way](segment)(q, k, v)
        found.float().square().sum().backward()
    except Exception as error:  # whatever this torch or card does not have is a reason to take the next way
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    difference = float((found.float() - expected).abs().max())
    return "" if difference < 0.05 and q.grad is not None else f"it differs from the definition by {difference:.2g}"
