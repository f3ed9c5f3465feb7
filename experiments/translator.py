"""The transformer of *Attention Is All You Need*, small, trained to translate numbers from English to Spanish.

Post-norm, sinusoidal positions added to the embeddings, ReLU, LayerNorm, biases, one embedding for both languages and
the output: figure 1 of Vaswani et al. 2017, at width 64 with two blocks on each side. Dropout is on the branches alone,
where section 5.4 has it on the sum of embeddings and positions too; attention has biases too; embeddings are not scaled
up, the waves are scaled down; weights start as `initialize` says. The figures of the pages were measured so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.number_words import HIGHEST, english, spanish
from experiments.training import SumAndCount, learn
from foundation_core.model.attention import Memory
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import PADDING, Layout
from foundation_core.model.transformer import EncoderDecoder
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, OptimizerSpec, TrunkSpec

PAD, START, END = 0, 1, 2
TRAIN_NUMBERS, TEST_NUMBERS, BATCH, STEPS = 20_000, 1_000, 64, 600
TRUNK = TrunkSpec(
    width=64, depth=2, heads=4, position="sinusoidal", residual="post", norm="layer", feed="relu", bias=True,
    dropout=0.1,
)  # fmt: skip
OPTIMIZER = OptimizerSpec(lr=2e-3, warmup_fraction=0.1, beta2=0.98, weight_decay=0.01)


class Words:
    """Words as token ids, both languages in one vocabulary."""

    def __init__(self) -> None:
        known = {word for number in range(HIGHEST + 1) for word in (*english(number), *spanish(number))}
        self.words = ["<pad>", "<start>", "<end>", *sorted(known)]
        self._ids = {word: number for number, word in enumerate(self.words)}

    def encode(self, words: Sequence[str]) -> list[int]:
        """The id of each word."""
        return [self._ids[word] for word in words]

    def decode(self, ids: Sequence[int]) -> list[str]:
        """The words up to the end token."""
        ids = list(ids)
        return [self.words[number] for number in (ids[: ids.index(END)] if END in ids else ids)]


class Pairs(NamedTuple):
    """Sentences beside their translations, padded.

    Args:
        source: (B, S), each sentence closed by the end token.
        inputs: (B, T), what the decoder reads: the start token and the translation.
        labels: (B, T), what it is to say: the translation and the end token.
    """

    source: Tensor
    inputs: Tensor
    labels: Tensor


def pairs_of(numbers: Sequence[int], words: Words) -> Pairs:
    """The sentences of numbers."""
    sources = [[*words.encode(english(number)), END] for number in numbers]
    targets = [words.encode(spanish(number)) for number in numbers]
    return Pairs(
        _padded(sources), _padded([[START, *target] for target in targets]), _padded([[*t, END] for t in targets])
    )


def layout_of(tokens: Tensor) -> Layout:
    """A layout in which padding is read by nobody."""
    return Layout(torch.arange(tokens.shape[1]).expand_as(tokens), torch.where(tokens == PAD, PADDING, 0))


def numbers_of_split(seed: int = 0) -> tuple[list[int], list[int]]:
    """The numbers to train on and the numbers to test on; none is in both."""
    order = torch.randperm(HIGHEST + 1, generator=torch.Generator().manual_seed(seed)).tolist()
    return order[:TRAIN_NUMBERS], order[TRAIN_NUMBERS : TRAIN_NUMBERS + TEST_NUMBERS]


@cache
def trained(seed: int = 0) -> tuple[EncoderDecoder, Words, list[float]]:
    """The translator, its words, and the loss of each step; trained once in a process."""
    words, (numbers, _) = Words(), numbers_of_split()
    spec = ModelSpec(family="encoder_decoder", trunk=TRUNK, context_tokens=16)
    model = initialize(build(spec, SampleShape(vocabulary=len(words.words))), seed)
    assert isinstance(model, EncoderDecoder)
    torch.manual_seed(seed)  # dropout
    draw = torch.Generator().manual_seed(seed)

    def loss(step: int) -> SumAndCount:
        chosen = torch.randint(len(numbers), (BATCH,), generator=draw).tolist()
        pairs = pairs_of([numbers[number] for number in chosen], words)
        return summed_loss(model, pairs, model.encode(pairs.source, layout_of(pairs.source)))

    return model, words, learn(model, loss, STEPS, OPTIMIZER)


def summed_loss(model: EncoderDecoder, pairs: Pairs, memory: Memory) -> SumAndCount:
    """Nats of the translations, given what the encoder said."""
    logits_BTV = model.decoder(pairs.inputs, layout_of(pairs.inputs), memory=memory)
    total = F.cross_entropy(logits_BTV.flatten(0, 1), pairs.labels.flatten(), ignore_index=PAD, reduction="sum")
    return total, int((pairs.labels != PAD).sum())


@torch.no_grad()
def translate(model: EncoderDecoder, memory: Memory, length_tokens: int) -> Tensor:
    """(B, T) the most probable word at each step, as they are written one by one."""
    written_BT = torch.full((len(memory.x), 1), START)
    for _ in range(length_tokens):
        logits_BTV = model.decoder(written_BT, Layout(*_written(written_BT)), memory=memory)
        written_BT = torch.cat([written_BT, logits_BTV[:, -1:].argmax(dim=-1)], dim=1)
    return written_BT[:, 1:]


def _written(tokens: Tensor) -> tuple[Tensor, Tensor]:
    return torch.arange(tokens.shape[1]).expand_as(tokens), torch.zeros_like(tokens)


def _padded(rows: list[list[int]]) -> Tensor:
    length = max(map(len, rows))
    return torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
