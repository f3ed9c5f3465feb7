"""Objectives that fail on purpose: by certain documents, at certain moments, or for want of memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch
from torch import Tensor, nn

from foundation_core.data.shards.dataset import ShardWriter
from foundation_core.data.units.work import TOKENS
from foundation_core.events import read_events
from foundation_core.objectives.base import ALONE, Example, Ranks
from foundation_core.objectives.language import NextToken
from tests.support.training import Trained, weights_sha256

POISON = 47
"""A token that only poisoned documents have."""

Harm = Literal["loss", "gradient", "leap"]


def poisoned_corpus(folder: Path, poisoned: Iterable[int], documents: int = 60, seed: int = 0) -> Path:
    """A token data set of documents of 2 to 20 tokens, of which those of some numbers hold the poison."""
    draw, poisoned = random.Random(seed), set(poisoned)
    tokens = []
    for number in range(documents):
        first, step, length = draw.randrange(46), draw.choice([1, 2, 3]), draw.randint(2, 20)
        body = [1 + (first + step * place) % 46 for place in range(length)]
        if number in poisoned:
            body[length // 2] = POISON
        tokens.append([*body, 0])
    names = [name_of(number) for number in range(documents)]
    rows = pa.table({"document": names, "group": [""] * documents, "tokens": tokens}, schema=TOKENS)
    with ShardWriter(folder, TOKENS, source={}, shard_size=200) as writer:
        writer.write(rows)
    return folder


def name_of(number: int) -> str:
    """A document's id."""
    return f"test/{number:04d}"


@dataclass(frozen=True)
class Tasted(Example):
    """An example that knows whether poison is in it."""

    poisoned: bool = False


@dataclass
class Indigestible(NextToken):
    """Next token, harmed by poison.

    Args:
        harm: what is not finite, or whether the loss is a hundred times as large.
        since: samples before this one do no harm.
    """

    harm: Harm = "loss"
    since: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """As next token."""
        plain = super().prepare(batch, seed)
        late = batch["sample"] >= self.since if "sample" in batch else torch.ones(len(batch["tokens"]))
        poisoned = bool((batch["tokens"][late.bool()] == POISON).any())
        return Tasted(plain.inputs, plain.labels, plain.count, poisoned)

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The real loss, or what poison makes of it; a validation stays finite."""
        real = super().loss(model, example, ranks)
        assert isinstance(example, Tasted)
        felt = torch.is_grad_enabled() or self.harm == "leap"
        return harmed(real, self.harm) if example.poisoned and felt else real


def harmed(loss: Tensor, harm: Harm) -> Tensor:
    """A loss that is not finite, one whose gradient is not, or a hundred times the loss."""
    if harm == "leap":
        return 100 * loss
    return loss * float("nan") if harm == "loss" else loss + (loss * 0).sqrt()


@dataclass
class Erring(NextToken):
    """Next token on a machine that errs at certain calls of the loss in training, whatever the rows are.

    Args:
        calls: their numbers, from 1.
    """

    calls: frozenset[int]
    harm: Harm = "loss"
    made: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The real loss, or what the machine makes of it."""
        real = super().loss(model, example, ranks)
        self.made += torch.is_grad_enabled()
        return harmed(real, self.harm) if torch.is_grad_enabled() and self.made in self.calls else real


class Cramped(NextToken):
    """Next token on a device that has memory for so many rows; the host's refusal is real.

    Args:
        rows: more of them at once are refused.
        device: whose memory it is: cuda or host.
        when: what is refused: step or validation.
    """

    def __init__(self, rows: int, device: Literal["cuda", "host"] = "cuda", when: str = "step") -> None:
        super().__init__()
        self.rows, self.device, self.when = rows, device, when
        self.refused = 0

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The real loss."""
        now = "step" if torch.is_grad_enabled() else "validation"
        if len(example.labels) > self.rows and now == self.when:
            self.refused += 1
            if self.device == "host":
                torch.empty(1 << 58)  # more than any host has
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().loss(model, example, ranks)


def events_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The events of a kind that rank 0 of a training wrote."""
    return [event for _, event in read_events(folder / "rank-0") if event["kind"] == kind]


def assert_same(one: Trained, other: Trained) -> None:
    """Two trainings did the same to the last digit."""
    assert one.losses == other.losses
    assert one.grad_norms == other.grad_norms
    assert one.validations == other.validations
    assert weights_sha256(one.weights) == weights_sha256(other.weights)
    assert one.progress.labels == other.progress.labels


def stop_at(question: int) -> Callable[[], bool]:
    """A stop signal that is given at the n-th question."""
    asked = count(1)
    return lambda: next(asked) == question


class StopAfter:
    """A stop that a context is given, asked for from the n-th question on."""

    def __init__(self, questions: int) -> None:
        self._asked, self._questions = count(1), questions

    def requested(self) -> bool:
        """Whether that question was asked."""
        return next(self._asked) >= self._questions
