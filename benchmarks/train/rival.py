"""The rival: a decoder in plain torch, trained as well as we know how, in one process.

bf16 autocast over float32 weights (or float32 alone), torch's fused attention kernel, one product for queries, keys
and values, fused AdamW, tied head; eager, through torch.compile, or eager with logits and loss in pieces. It trains on
random tokens: what they are costs a step nothing.
`python -m benchmarks.train.rival SHAPE.json` prints what it reached as one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WARM_UP_STEPS = 3


@dataclass(frozen=True)
class Shape:
    """What both sides train, and how long."""

    depth: int = 6
    width: int = 384
    heads: int = 6
    context_tokens: int = 256
    batch_rows: int = 16
    vocabulary: int = 8192
    threads: int = 2
    steps: int = 15
    compile: bool = False
    loss_pieces: int = 1
    precision: str = "bf16"

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch_rows * self.context_tokens

    @property
    def dtype(self) -> torch.dtype:
        """That products are in."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


class RivalBlock(nn.Module):
    """Attention and feed-forward, each on a residual with the norm before it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, width = shape.heads, shape.width
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D)."""
        parts = self.qkv(self.norms[0](x_BTD)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x_BTD = x_BTD + self.out(mixed)
        return x_BTD + self.down(F.gelu(self.up(self.norms[1](x_BTD))))


class Rival(nn.Module):
    """Tokens to the mean loss of the next ones."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed = nn.Embedding(shape.vocabulary, shape.width)
        self.place = nn.Embedding(shape.context_tokens, shape.width)
        self.blocks = nn.ModuleList(RivalBlock(shape) for _ in range(shape.depth))
        self.norm, self.loss_pieces = nn.LayerNorm(shape.width, bias=False), shape.loss_pieces
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """A number."""
        inputs, labels = tokens_BT[:, :-1], tokens_BT[:, 1:]
        x_BTD = self.embed(inputs) + self.place.weight
        for block in self.blocks:
            x_BTD = block(x_BTD)
        x_pieces = self.norm(x_BTD).flatten(0, 1).tensor_split(self.loss_pieces)
        label_pieces = labels.flatten().tensor_split(self.loss_pieces)
        pieces = zip(x_pieces, label_pieces, strict=True)
        nats = [F.cross_entropy(F.linear(x, self.embed.weight), label, reduction="sum") for x, label in pieces]
        return torch.stack(nats).sum() / labels.numel()


def train(shape: Shape) -> dict[str, float]:
    """Tokens a second, of the median step; and what a square product in the same format reaches here."""
    from foundation_core.evaluate.speed import matmul_flops_per_second

    torch.set_num_threads(shape.threads)
    model = Rival(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    call = torch.compile(model) if shape.compile else model
    seconds = []
    for _ in range(WARM_UP_STEPS + shape.steps):
        batch = torch.randint(shape.vocabulary, (shape.batch_rows, shape.context_tokens + 1))
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=shape.precision == "bf16"):
            loss = call(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
    product = matmul_flops_per_second(shape.dtype)
    return {"tokens_per_second": shape.tokens / median(seconds[WARM_UP_STEPS:]), "product": product}


if __name__ == "__main__":
    given = Shape(**json.loads(sys.argv[1]))
    print(json.dumps({**asdict(given), **train(given)}))
