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
from foundation_core.data.features import Features
from foundation_core.data.modalities import normalise
from foundation_core.data.tokenizer import END_ID, token_bytes
from foundation_core.errors import ConfigError
from foundation_core.evaluate.metrics import LossSum
from foundation_core.evaluate.pairs import embed_texts
from foundation_core.generation.generate import generate
from foundation_core.generation.sampling import Sampling, Stop
from foundation_core.model.heads import mean_of_tokens
from foundation_core.model.transformer import DualEncoder, Model
from foundation_core.objectives.base import IGNORE
from foundation_core.objectives.language import NextToken

if TYPE_CHECKING:
    import pandas
    from tokenizers import Tokenizer

PARAMS: dict[str, Any] = {"task": "", "max_tokens": 64, "temperature": 0.8, "top_k": 40, "seed": 0}
"""What a caller may choose, with what holds otherwise. Without a task it is the model's first. Temperature 0 takes the
most probable token; `max_tokens` ends where the model's context does."""
TEXT = "text"

Row = dict[str, Any]
Item = str | Tensor
"""A normalised text, or values (C, H, W)."""


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
        if isinstance(ability, DoTask):
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
            params: any of `PARAMS`.
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
        chosen = {**PARAMS, **params}
        name = chosen["task"] or self.tasks[0]
        if name not in self.abilities:
            raise ConfigError(f"this model has no task {name!r}", allowed=", ".join(self.tasks))
        read = [self.read(item) for item in items]
        if any((TEXT if isinstance(item, str) else self._values) not in self.inputs_of(name) for item in read):
            raise ConfigError(f"the task {name} reads {' or '.join(self.inputs_of(name))}", fix="ask it for such rows")
        with torch.inference_mode():
            return self.abilities[name].answer(read, chosen)

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


class Generate:
    """Texts continued."""

    name = "generate"
    columns: ClassVar[Mapping[str, str]] = {"completion": "string"}

    def __init__(self, served: ServedModel) -> None:
        self._served = served

    def answer(self, items: Sequence[Item], params: Mapping[str, Any]) -> list[Row]:
        """A completion for each text."""
        served = self._served
        prompts = [served.tokenizer.encode(item).ids or [END_ID] for item in items]
        max_tokens = min(params["max_tokens"], served.context_tokens - 1)
        sampling = Sampling(params["temperature"], params["top_k"])
        model, stop = cast(Model, served.model), Stop(END_ID)
        rows = generate(model, prompts, max_tokens, sampling, stop, params["seed"], prefix=served.prefix)
        return [{"completion": served.tokenizer.decode(row)} for row in rows]


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
    """What a model can be asked, by what its parts are."""
    if isinstance(served.model, Model) and served.model.trunk.causal:
        yield Generate(served)
        yield Score(served)
    if served.task_model is not None:
        yield DoTask(served.task_model)
    yield Embed(served)
