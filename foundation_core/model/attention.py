"""Attention: the definition in five lines, the fast kernels, the part that a block holds, and the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_core.model.layout import AttentionMask, Layout
from foundation_core.model.positions import Rotation, rotate


def attend(
    q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, allowed: Tensor, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """What each query finds: the mean of the values, weighted by how well their keys match it.

    Args:
        allowed: broadcasts to (B, H, T, S); True where the query may read the key.
        bias: broadcasts to the same; added to the scores.
        dropout: probability that a weight is dropped in training; the others grow by as much.

    Source: Vaswani et al. 2017, equation 1. This is the definition; `attend_fast` must equal it.
    """
    match_BHTS = q_BHTE @ k_BHSE.transpose(-2, -1) / sqrt(q_BHTE.shape[-1])
    match_BHTS = match_BHTS if bias is None else match_BHTS + bias
    match_BHTS = match_BHTS.masked_fill(~allowed, float("-inf"))
    weight_BHTS = F.dropout(match_BHTS.softmax(dim=-1), dropout)
    return weight_BHTS @ v_BHSE


def attend_fast(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask: AttentionMask, dropout: float = 0.0) -> Tensor:
    """The same by the kernel that is fastest for the case; each of K key heads serves H / K query heads.

    The only place that chooses, by these times of forward and backward on 2 threads of a CPU:

        float32, 8 x 256 tokens of width 192, heads     3        4        6
        torch's kernel, causal                          12.1     12.8     16.0 ms
        torch's kernel, boolean mask (packed)           12.7     13.5     15.9 ms
        plain products, as in `attend`                  15.7     26.1     38.6 ms

        bfloat16, 16 x 256 tokens, 6 heads of 64, on a CPU that multiplies it:  torch's 50 ms, plain products 29 ms
    """
    if q_BHTE.dtype != k_BKSE.dtype:  # a store may hold more digits than the model computes with
        return attend_fast(q_BHTE.to(k_BKSE.dtype), k_BKSE, v_BKSE, mask, dropout).to(q_BHTE.dtype)
    bias = None if mask.bias is None else mask.bias.to(q_BHTE.dtype)
    if q_BHTE.device.type == "cpu" and q_BHTE.dtype == torch.bfloat16:
        groups, T, S = q_BHTE.shape[1] // k_BKSE.shape[1], q_BHTE.shape[2], k_BKSE.shape[2]
        if groups > 1:
            k_BKSE, v_BKSE = k_BKSE.repeat_interleave(groups, dim=1), v_BKSE.repeat_interleave(groups, dim=1)
        return attend(q_BHTE, k_BKSE, v_BKSE, mask.written_out(T, S, q_BHTE.device), bias, dropout)
    grouped = q_BHTE.shape[1] != k_BKSE.shape[1]
    return F.scaled_dot_product_attention(
        q_BHTE,
        k_BKSE,
        v_BKSE,
        attn_mask=mask.allowed if bias is None else bias,
        dropout_p=dropout,
        is_causal=mask.causal,
        enable_gqa=grouped,
    )


@dataclass(frozen=True)
class Memory:
    """A row that another row reads: what an encoder made of its source.

    Args:
        x: (B, S, D).
        layout: whose segments say which tokens of the other row read it.
    """

    x: Tensor
    layout: Layout


@dataclass(frozen=True)
class Reading:
    """What every block needs to know of the layout, made once per forward.

    Args:
        memory: (B, S, D) that is read. None: the row reads itself.
    """

    mask: AttentionMask
    rotation: Rotation | None = None
    memory: Tensor | None = None


class Attention(nn.Module):
    """Multi-head attention of a row of tokens: over itself and what a store remembers of it, or over a memory.

    Args:
        width: D, a multiple of the heads.
        kv_heads: K, a divisor of the heads; fewer make the cache smaller (Ainslie et al. 2023). None: as many.
        source_width: features of what is read. None: as many as the reader's.
        qk_norm: makes a norm of a head's width for queries and one for keys: their match cannot grow with the weights
            (Henry et al. 2020).
        dropout: probability that a weight of a key is dropped in training.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        *,
        bias: bool = False,
        source_width: int | None = None,
        qk_norm: Callable[[int], nn.Module] = nn.Identity,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.head_width, self.dropout = width // heads, dropout
        kv_width, source_width = (kv_heads or heads) * self.head_width, source_width or width
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(source_width, kv_width, bias=bias)
        self.value = nn.Linear(source_width, kv_width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.query_norm, self.key_norm = qk_norm(self.head_width), qk_norm(self.head_width)

    def forward(self, x_BTD: Tensor, reading: Reading, store: Store | None = None) -> Tensor:
        """(B, T, D): for each token what it read."""
        if reading.memory is not None and store is not None and store.length_tokens:
            q_BTD, (k_BKSE, v_BKSE) = self.query(x_BTD), store.held()  # a memory does not grow
        else:
            q_BTD, k_BSD, v_BSD = self.project(x_BTD, x_BTD if reading.memory is None else reading.memory)
            k_BKSE, v_BKSE = rotate(self.key_norm(self._heads(k_BSD)), reading.rotation), self._heads(v_BSD)
            if store is not None:
                k_BKSE, v_BKSE = store.append(k_BKSE, v_BKSE)
        q_BHTE = rotate(self.query_norm(self._heads(q_BTD)), reading.rotation)
        y_BHTE = attend_fast(q_BHTE, k_BKSE, v_BKSE, reading.mask, self.dropout if self.training else 0.0)
        y_BTD: Tensor = self.out(y_BHTE.transpose(1, 2).flatten(2))
        return y_BTD

    def project(self, x_BTD: Tensor, source_BSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the row, keys and values of what it reads, (B, T or S, features) each."""
        return self.query(x_BTD), self.key(source_BSD), self.value(source_BSD)

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], -1, self.head_width).transpose(1, 2)


class Store:
    """Keys and values that one block computed so far, in memory taken once.

    Args:
        capacity_tokens: tokens that fit; if the first ones are more, as many as they are.
    """

    def __init__(self, capacity_tokens: int = 0) -> None:
        self.capacity_tokens, self.length_tokens = capacity_tokens, 0
        self._keys = self._values = torch.empty(0)

    def append(self, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values including these; keys are kept as they are read, already turned by their position."""
        if self.length_tokens == 0:
            B, K, _, E = k_BKTE.shape
            # On a CPU torch reads float32 for one token eight times as fast as bfloat16.
            at_least = torch.float32 if k_BKTE.device.type == "cpu" else k_BKTE.dtype
            dtype = torch.promote_types(k_BKTE.dtype, at_least)
            self._keys = k_BKTE.new_empty(B, K, max(self.capacity_tokens, k_BKTE.shape[2]), E, dtype=dtype)
            self._values = torch.empty_like(self._keys)
        start, stop = self.length_tokens, self.length_tokens + k_BKTE.shape[2]
        self._keys[:, :, start:stop] = k_BKTE
        self._values[:, :, start:stop] = v_BKTE
        self.length_tokens = stop
        return self.held()

    def held(self) -> tuple[Tensor, Tensor]:
        """All keys and values so far, (B, K, S, E) each."""
        return self._keys[:, :, : self.length_tokens], self._values[:, :, : self.length_tokens]

    def select(self, row_B: Tensor) -> None:
        """Go on with these rows, in this order."""
        self._keys, self._values = self._keys[row_B], self._values[row_B]


class Cache:
    """What a trunk remembers of the tokens it has read, so that the next ones need only their own computation.

    A memory that it reads beside them is remembered too: its keys and values are computed once.
    """

    def __init__(self, depth: int, capacity_tokens: int) -> None:
        self.stores = [Store(capacity_tokens) for _ in range(depth)]
        self.memory_stores = [Store() for _ in range(depth)]
        self.layout: Layout | None = None
        self.tokens: Tensor | None = None

    @property
    def length_tokens(self) -> int:
        """Tokens read so far."""
        return 0 if self.layout is None else self.layout.position.shape[1]

    def read(self, tokens_BT: Tensor) -> Tensor:
        """(B, S): all tokens so far, these included."""
        self.tokens = tokens_BT if self.tokens is None else torch.cat([self.tokens, tokens_BT], dim=1)
        return self.tokens

    def extend(self, layout: Layout) -> Layout:
        """The layout of all tokens, these included: the keys that they may read."""
        self.layout = layout if self.layout is None else self.layout.then(layout)
        return self.layout

    def select(self, row_B: Tensor) -> None:
        """Go on with these rows, in this order; each must read the memory that the row of its new place read."""
        for store in self.stores:
            store.select(row_B)
        if self.layout is not None:
            self.layout = self.layout.select(row_B)
        self.tokens = None if self.tokens is None else self.tokens[row_B]
