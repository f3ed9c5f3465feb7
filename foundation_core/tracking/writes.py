"""What of a packaged model writes texts, and what a caller may choose of it.

items --begun--> rows --a `WritingSpec`: what is usual, and what the caller said--> texts, whole or as they grow
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast, get_args

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from foundation_core.adapt.tasks import Facts
from foundation_core.adapt.write import (
    ContinuingTask,
    WritingTask,
    begun_beside,
    ending,
    padded_rows,
    room_for,
    source_layout,
)
from foundation_core.data.tokens.byte_level import END_ID
from foundation_core.generation.texts import Begun, Ending, in_parts, pieces_of, texts_of
from foundation_core.model.transformer import Model, Reader
from foundation_core.specs.writing import WRITTEN_AS_USUAL, WritingSpec, writing

Row = dict[str, Any]
Item = str | Tensor
"""A normalised text, or values (C, H, W)."""
MAX_TOKENS = 64
"""Tokens that a text is continued by, if nobody says how many."""


class Param(NamedTuple):
    """What a caller may choose.

    Args:
        kind: string, long or double.
        several: whether it is a list of them.
    """

    kind: str
    several: bool = False

    @property
    def unsaid(self) -> Any:
        """The value that means that nobody said it."""
        return [] if self.several else None


def _param(annotation: Any) -> Param:
    kinds = {str: "string", int: "long", float: "double"}
    of, *_ = get_args(annotation) or (annotation,)
    return Param(kinds[of], annotation not in kinds)


PARAMS: Mapping[str, Param] = {
    "task": Param("string"),
    "max_tokens": Param("long"),
    **{name: _param(field.annotation) for name, field in WritingSpec.model_fields.items()},
}
"""What a caller may choose, by name. What is not said is as the task has it; without a task it is the model's first.
`max_tokens` ends where the model's context does."""


class Writes(ABC):
    """An ability whose answers are texts, written as a caller says and else as is usual for it."""

    name: str
    column: ClassVar[str]
    """Of its answers."""
    usual: WritingSpec
    max_tokens: int
    """That a text has, at the most, if nobody says how many."""
    behind: bool
    """Whether what is written goes on with the item that was asked, and is no text of its own."""

    @property
    def columns(self) -> Mapping[str, str]:
        """The one that the texts stand in."""
        return {self.column: "string"}

    @abstractmethod
    def begun(self, items: Sequence[Item]) -> Begun:
        """The rows up to where the texts begin."""

    @property
    @abstractmethod
    def ending(self) -> Ending:
        """How tokens become texts."""

    def how(self, params: Mapping[str, Any]) -> WritingSpec:
        """How texts are written.

        Raises:
            ConfigError: a value that is not allowed, or two that do not go together.
        """
        said = {name: value for name, value in params.items() if name in PARAMS and value != PARAMS[name].unsaid}
        return writing(said, self.usual)

    def answer(self, items: Sequence[Item], params: Mapping[str, Any]) -> list[Row]:
        """A text for each item."""
        texts: list[str] = []
        for part, how in in_parts(len(items), self.how(params)):
            begun = self.begun(items[part.start : part.stop])
            texts += texts_of(begun, self._room(begun, params), how, self.ending)
        return [{self.column: text} for text in texts]

    def stream(self, items: Sequence[Item], params: Mapping[str, Any]) -> Iterator[list[str | None]]:
        """The same texts as they grow: those side by side that are written side by side; None where one has ended."""
        for part, how in in_parts(len(items), self.how(params)):
            begun = self.begun(items[part.start : part.stop])
            before, behind = [None] * part.start, [""] * (len(items) - part.stop)
            for pieces in pieces_of(begun, self._room(begun, params), how, self.ending):
                yield [*before, *pieces, *behind]

    def _room(self, begun: Begun, params: Mapping[str, Any]) -> int:
        said = params.get("max_tokens")
        return room_for(begun.model, self.max_tokens if said is None else said)


class Generate(Writes):
    """What the pretrained model writes: texts continued; of an encoder-decoder, what it writes beside its source.

    Args:
        context_tokens: of a text that is read.
        prefix: whether a prompt's tokens read each other both ways.
        of_values: whether the source is an image or a recording, and no text.
    """

    name, column = "generate", "completion"
    usual, max_tokens = WRITTEN_AS_USUAL, MAX_TOKENS

    def __init__(
        self,
        model: Reader,
        tokenizer: Tokenizer,
        context_tokens: int,
        *,
        prefix: bool = False,
        of_values: bool = False,
    ) -> None:
        self._model, self._tokenizer, self._context_tokens = model, tokenizer, context_tokens
        self._prefix, self._of_values, self.behind = prefix, of_values, isinstance(model, Model)

    def begun(self, items: Sequence[Item]) -> Begun:
        """Texts as prompts, or what an encoder made of the items."""
        if self._of_values:
            return begun_beside(self._model, torch.stack(cast(list[Tensor], list(items))), None, self._tokenizer)
        rows = [self._tokenizer.encode(item).ids or [END_ID] for item in items]
        if isinstance(self._model, Model):
            return Begun(self._model, rows, prefix=self._prefix)
        tokens, segment = padded_rows([row[: self._context_tokens] for row in rows])
        return begun_beside(self._model, tokens, source_layout({"source_segment": segment}), self._tokenizer)

    @property
    def ending(self) -> Ending:
        """Sentinels are part of what is written beside a text: they say which gap is filled."""
        if self.behind or self._of_values:
            return Ending(END_ID, self._tokenizer.decode)
        return Ending(END_ID, lambda tokens: _with_sentinels(self._tokenizer, tokens))


class Write(Writes):
    """What the model was fine-tuned to write."""

    column = "answer"

    def __init__(self, task: WritingTask, model: nn.Module, facts: Facts) -> None:
        self._task, self._model, self._facts = task, model, facts
        self.reads, self.name, self.behind = task.reads, task.ability, isinstance(task, ContinuingTask)
        self.usual, self.max_tokens = task.usual(facts), facts.spec.answer_tokens

    def begun(self, items: Sequence[Item]) -> Begun:
        """As the task asks."""
        return self._task.begun(self._model, self._task.questions(items, self._facts), self._facts)

    @property
    def ending(self) -> Ending:
        """Of the task."""
        return ending(self._facts)


def _with_sentinels(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    text: str = tokenizer.decode([token for token in tokens if token != END_ID], skip_special_tokens=False)
    return text
