"""The Objective: how a batch becomes an example, and an example a loss.

A loss is a sum, and beside it stands a count; whoever trains divides once, over all micro-batches and ranks. A mean of
means would weigh a label more where fewer labels stand beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from foundation_core.errors import ConfigError
from foundation_core.shape import SampleShape
from foundation_core.specs import MaskingSpec, ModelSpec

IGNORE = -100
"""Label of a place that is not scored."""

Unit = Literal["nats", "squares", "pairs"]


@dataclass(frozen=True)
class Example:
    """What a model is asked, and what it should answer.

    Args:
        inputs: the keyword arguments of the model's forward.
        labels: the answers, `IGNORE` where none is wanted.
        count: int64 scalar, how many labels are wanted: what the loss is divided by, once, in the end.
    """

    inputs: Mapping[str, Any]
    labels: Tensor
    count: Tensor


class Ranks(Protocol):
    """Those who train together, as far as a loss must know of them."""

    rank: int
    world: int

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all ranks; no gradient passes."""

    def gather_over_ranks(self, value: Tensor) -> Tensor:
        """(world, ...) the tensor of every rank, in the order of the ranks; no gradient passes."""


class Alone:
    """One rank that is all there are."""

    rank, world = 0, 1

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """The value."""
        return value

    def gather_over_ranks(self, value: Tensor) -> Tensor:
        """The value, as the only one."""
        return value[None]


ALONE = Alone()


class Objective(ABC):
    """Found by name (`foundation.objectives`); see `Request` for how it is built."""

    decomposable: ClassVar[bool] = True
    """Whether the loss is a sum over rows, so that how rows are grouped in micro-batches and ranks cannot matter. One
    that is not is given the joint batch: no micro-batches, and `ranks` to reach the rows of the others."""
    unit: ClassVar[Unit] = "nats"
    """Of the loss of one label."""
    likelihood: ClassVar[bool] = False
    """Whether each label is a token given those before it, so that their sum is what the text costs (bits per byte)."""

    reads_both_ways: ClassVar[bool] = False
    """Whether an answer needs what stands behind it, which a causal trunk does not read."""

    @abstractmethod
    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """The example of a batch: a pure function of both, so that any rank makes the same one.

        Args:
            batch: among others `sample` (N,): the global number of each row's sample, by which randomness is keyed.
        """

    def fit(self, tokens: int) -> None:  # noqa: B027 - most have nothing to refuse
        """Refuse rows of so many tokens, where nothing can be asked of them.

        Raises:
            ConfigError: so it is.
        """

    @abstractmethod
    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """float32 scalar: the sum of the losses of the example's labels."""

    def penalty(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor | float:
        """What is added to the loss in training and is no part of the score; called after `loss`."""
        return 0.0


@dataclass(frozen=True)
class SpecialTokens:
    """The entries of a tokenizer that stand for no text.

    Args:
        word_edges: (V, 2) bool, whether a token's first and its last character are of a word; for masking whole ones.
    """

    vocabulary: int
    end: int
    start: int | None = None
    mask: int | None = None
    sentinels: tuple[int, ...] = ()
    word_edges: Tensor | None = None

    def need(self, name: Literal["start", "mask"]) -> int:
        """The id of a special token.

        Raises:
            ConfigError: the tokenizer has none.
        """
        found: int | None = getattr(self, name)
        if found is None:
            raise _lacks(f"no {name} token", name)
        return found

    def need_sentinels(self) -> tuple[int, ...]:
        """The ids of the sentinels.

        Raises:
            ConfigError: the tokenizer has none.
        """
        if not self.sentinels:
            raise _lacks("no sentinels", "sentinels")
        return self.sentinels


@dataclass(frozen=True)
class Request:
    """What an objective is built for: an entry point is called with one.

    Args:
        tokens: of the data set's tokenizer; None where the data is no text.
    """

    model: ModelSpec
    masking: MaskingSpec
    shape: SampleShape
    tokens: SpecialTokens | None = None

    def need_tokens(self) -> SpecialTokens:
        """The special tokens.

        Raises:
            ConfigError: the data set has no text.
        """
        if self.tokens is None:
            raise ConfigError(
                "the objective predicts text, and the data set has none",
                fix="choose an objective on values, or a source with captions",
            )
        return self.tokens


def there(batch: Mapping[str, Tensor]) -> Tensor:
    """(N,) bool: which rows are samples, and not the padding that gives every rank as many rows."""
    return batch["sample"] >= 0


def _lacks(what: str, name: str) -> ConfigError:
    return ConfigError(
        f"the tokenizer has {what}, and the objective needs it",
        fix=f"set --ingest.tokenizer.special so that it holds {name}, and ingest again",
    )
