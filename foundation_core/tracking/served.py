"""A packaged model at work: what it can be asked is what its parts can do.

item (text, bytes of a file, numbers) --read--> tokens or values --Ability--> a row of answers
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from foundation_core.adapt.classify import RowTask
from foundation_core.adapt.tasks import Facts, Task
from foundation_core.adapt.transfer import Pretrained
from foundation_core.adapt.write import WritingTask
from foundation_core.data.sources.modalities import normalise
from foundation_core.data.tokens.byte_level import END_ID, token_bytes
from foundation_core.data.values.features import Features
from foundation_core.errors import ConfigError
from foundation_core.evaluate.metrics import LossSum
from foundation_core.evaluate.pairs import embed_texts
from foundation_core.model.heads import mean_of_tokens
from foundation_core.model.transformer import DualEncoder, EncoderDecoder, Model
from foundation_core.objectives.base import IGNORE
from foundation_core.objectives.language import NextToken
from foundation_core.tracking.writes import Generate, Item, Row, Write, Writes

if TYPE_CHECKING:
    import pandas
    from tokenizers import Tokenizer

TEXT = "text"


@dataclass(frozen=True)
class TaskModel:
    """A fine-tuned model and what it needs to be asked."""

    task: Task
    model: nn.Module
    facts: Facts


class ServedModel:
    """A pretrained model, a task model if there is one, and what reads raw items for both. Table in, table out.

    Args:
        tokenizer: of text or captions; None where there are none.
        features: what reads values; None for a model of text.
        prefix: whether a prompt's tokens read each other both ways.
    """

    def __init__(
        self,
        trunk: Pretrained,
        tokenizer: Tokenizer | None,
        features: Features | None = None,
        task_model: TaskModel | None = None,
        *,
        prefix: bool = False,
    ) -> None:
        self.model = trunk.model()
        self.context_tokens = trunk.spec.context_tokens
        self.features, self.task_model, self.prefix = features, task_model, prefix
        self._tokenizer = tokenizer
        self.abilities = {ability.name: ability for ability in _abilities(self)}

    @property
    def tasks(self) -> list[str]:
        """What can be asked; the first is what is answered if nothing is said."""
        return list(self.abilities)

    @property
    def tokenizer(self) -> Tokenizer:
        """Of text or captions.

        Raises:
            ConfigError: the model has none.
        """
        if self._tokenizer is None:
            raise ConfigError("this model knows no text", allowed=", ".join(self.inputs))
        return self._tokenizer

    @property
    def inputs(self) -> list[str]:
        """The columns that are read: `text`, or the name of the modality; a dual encoder reads both."""
        values = [] if self.features is None else [self._values]
        return values + ([TEXT] if self.features is None or isinstance(self.model, DualEncoder) else [])

    def inputs_of(self, task: str) -> list[str]:
        """Those of `inputs` that a task reads."""
        ability = self.abilities[task]
        if isinstance(ability, DoTask | Write):
            return [TEXT if ability.reads == "text" else self._values]
        return self.inputs

    @property
    def _values(self) -> str:
        return "" if self.features is None else self.features.name

    @property
    def columns(self) -> dict[str, str]:
        """The columns that the answers to all tasks have, with their types."""
        return {name: kind for ability in self.abilities.values() for name, kind in ability.columns.items()}

    @property
    def classes(self) -> list[str] | None:
        """What rows can be classified as; None if that cannot be asked."""
        fitted = self.task_model
        return fitted.facts.classes if fitted is not None and isinstance(fitted.task, RowTask) else None

    def get_raw_model(self) -> ServedModel:
        """The model itself, which MLflow gives to those who ask for what its wrapper cannot do."""
        return self

    def predict(self, data: pandas.DataFrame, params: Mapping[str, Any] | None = None) -> pandas.DataFrame:
        """One row for each row of `data`.

        Args:
            data: has the columns `inputs`; a row says one of them.
            params: any of `writes.PARAMS`.
        """
        import pandas

        return pandas.DataFrame(self.answer([self._raw(row) for row in data.to_dict("records")], params or {}))

    def answer(self, items: Sequence[Any], params: Mapping[str, Any]) -> list[Row]:
        """The same as `predict`, from plain values to plain values.

        Args:
            items: texts; or, of a model that reads values, bytes of files (also as base64) or numbers by channel.

        Raises:
            ConfigError: the model has no such task.
            ValueError: an item is not what the model reads.
        """
        ability = self._ability(params.get("task"))
        read = self._read(items, ability)
        with torch.inference_mode():
            return ability.answer(read, params)

    def stream(self, items: Sequence[Any], params: Mapping[str, Any]) -> Iterator[list[str | None]]:
        """The texts of `answer` as they grow: after each token the piece that each has become longer by, None where it
        has ended. Beams come as one piece.

        Raises:
            ConfigError: the model has no such task, or it writes no texts.
            ValueError: an item is not what the model reads.
        """
        ability = self.writer(params.get("task"))
        return ability.stream(self._read(items, ability), params)

    def writer(self, task: str | None = None) -> Writes:
        """The ability of that name, which writes texts. None: the first one that does.

        Raises:
            ConfigError: there is none, or it does something else.
        """
        able = {name: ability for name, ability in self.abilities.items() if isinstance(ability, Writes)}
        if not able:
            raise ConfigError(
                f"this model writes no texts; it can {', '.join(self.tasks)}",
                fix="ask for these over MLflow, or publish a model of a family that writes",
            )
        if task and task not in able:
            raise ConfigError(f"this model writes no texts by the task {task!r}", allowed=", ".join(able))
        return able[task or next(iter(able))]

    def _ability(self, task: str | None) -> Ability:
        name = task or self.tasks[0]
        if name not in self.abilities:
            raise ConfigError(f"this model has no task {name!r}", allowed=", ".join(self.tasks))
        return self.abilities[name]

    def _read(self, items: Sequence[Any], ability: Ability) -> list[Item]:
        read, inputs = [self.read(item) for item in items], self.inputs_of(ability.name)
        if any((TEXT if isinstance(item, str) else self._values) not in inputs for item in read):
            raise ConfigError(f"the task {ability.name} reads {' or '.join(inputs)}", fix="ask it for such rows")
        return read

    def class_probabilities(self, item: Any) -> dict[str, float]:
        """The probability of each class for an item; they sum to 1.

        Raises:
            ConfigError: the model has no classifier.
            ValueError: it is not what the model reads.
        """
        fitted, classes = self.task_model, self.classes
        if fitted is None or classes is None:
            raise ConfigError("this model has no classifier", fix="publish one from a recipe with labels")
        task = cast(RowTask, fitted.task)
        with torch.inference_mode():
            probabilities = task.probabilities(fitted.model, self.read(item), fitted.facts)
        return dict(zip(classes, probabilities.tolist(), strict=True))

    def read(self, item: Any) -> Item:
        """What the model's parts work on.

        Raises:
            ValueError: it is not what the model reads.
        """
        if self.features is None:
            return normalise(str(item).encode())
        if isinstance(item, _Text):
            return normalise(item.text.encode())
        if isinstance(item, str):
            item = base64.b64decode(item, validate=True)
        return self.features.prepare(item)

    def _raw(self, row: Mapping[str, Any]) -> Any:
        for name in self.inputs:
            value = row.get(name)
            if isinstance(value, str | bytes) or hasattr(value, "__len__"):
                return _Text(str(value)) if name == TEXT and self.features is not None else value
        raise ValueError(f"a row says none of {', '.join(self.inputs)}")


@dataclass(frozen=True)
class _Text:
    """A text among values."""

    text: str


class Ability(Protocol):
    """One thing that a model can be asked."""

    @property
    def name(self) -> str:
        """What a caller writes."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Of its answers, with their types."""

    def answer(self, items: Sequence[Item], params: Mapping[str, Any]) -> list[Row]:
        """A row for each item."""


class Score:
    """What a text costs: bits per byte."""

    name = "score"
    columns: ClassVar[Mapping[str, str]] = {"bits_per_byte": "double", "tokens": "long"}

    def __init__(self, served: ServedModel) -> None:
        self._served, self._token_bytes = served, token_bytes(served.tokenizer)

    def answer(self, items: Sequence[Item], params: Mapping[str, Any]) -> list[Row]:
        """Bits per byte of each text."""
        return [self._score(self._served.tokenizer.encode(item).ids) for item in items]

    def _score(self, ids: list[int]) -> Row:
        """The text and its end, in windows of one context as in the evaluation; a text without labels has no score."""
        ids, objective, total, context = [*ids, END_ID], NextToken(), LossSum(), self._served.context_tokens
        for start in range(0, len(ids) - 1, context):
            window = torch.tensor([ids[start : start + context + 1]])
            place = torch.arange(window.shape[1])[None]
            example = objective.prepare({"tokens": window, "segment": torch.zeros_like(window), "position": place}, 0)
            labels = example.labels[example.labels != IGNORE]
            nats = objective.loss(self._served.model, example).double().item()
            total += LossSum(nats, len(labels), int(self._token_bytes[labels].sum()))
        return {"bits_per_byte": total.bits_per_byte if total.bytes else math.nan, "tokens": len(ids)}


class DoTask:
    """What the model was fine-tuned for."""

    def __init__(self, fitted: TaskModel) -> None:
        self._fitted, self.reads = fitted, fitted.task.reads
        self.name, self.columns = fitted.task.ability, fitted.task.columns

    def answer(self, items: Sequence[Item], params: Mapping[str, Any]) -> list[Row]:
        """The task model's reply to each item."""
        return [self._fitted.task.reply(self._fitted.model, item, self._fitted.facts) for item in items]


class Embed:
    """A vector for each item: of a dual encoder the point in the joint space, else the mean of the trunk's output."""

    name = "embed"
    columns: ClassVar[Mapping[str, str]] = {"embedding": "doubles"}

    def __init__(self, served: ServedModel) -> None:
        self._served = served

    def answer(self, items: Sequence[Item], params: Mapping[str, Any]) -> list[Row]:
        """The vectors."""
        return [{"embedding": self._vector(item).double().tolist()} for item in items]

    def _vector(self, item: Item) -> Tensor:
        served, model = self._served, self._served.model
        if isinstance(model, DualEncoder):
            if isinstance(item, str):
                return embed_texts(model, served.tokenizer, [item], served.context_tokens)[0]
            return model.embed_values(item[None])[0]
        if isinstance(item, str):
            item = torch.tensor((served.tokenizer.encode(item).ids or [END_ID])[: served.context_tokens])
        x_BTD, layout = model.stem(item[None])
        return mean_of_tokens(model.trunk(x_BTD, layout), layout)[0]


def _abilities(served: ServedModel) -> Iterator[Ability]:
    """What a model can be asked, by what its parts are; what an encoder-decoder was fine-tuned for comes first."""
    fitted, model, of_values = served.task_model, served.model, served.features is not None
    if isinstance(model, Model) and model.trunk.causal:
        yield Generate(model, served.tokenizer, served.context_tokens, prefix=served.prefix)
        yield Score(served)
    if fitted is not None:
        task = fitted.task
        yield Write(task, fitted.model, fitted.facts) if isinstance(task, WritingTask) else DoTask(fitted)
    if isinstance(model, EncoderDecoder):
        yield Generate(model, served.tokenizer, served.context_tokens, of_values=of_values)
    yield Embed(served)
