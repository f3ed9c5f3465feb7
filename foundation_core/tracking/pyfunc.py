"""The packaged model at work: what MLflow loads by name from our wheel. It runs no code from the artifact.

weights.safetensors  model.json  tokenizer.json     the language model
classifier.safetensors  classifier.json             the task model, if there is one
example.json                                        a stored question and its answers
package.json                                        sha256 of every other file
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from foundation_core.adapt.transfer import WEIGHTS_FILE, Pretrained, task_model
from foundation_core.data.modalities import normalise
from foundation_core.data.tokenizer import END_ID, TOKENIZER_FILE, load_tokenizer, token_bytes
from foundation_core.errors import CheckpointError, ConfigError
from foundation_core.evaluate.metrics import LossSum
from foundation_core.files import read_json, sha256_file
from foundation_core.generation.generate import generate
from foundation_core.generation.sampling import Sampling, Stop
from foundation_core.objectives.base import IGNORE
from foundation_core.objectives.language import NextToken
from foundation_core.weights import load_weights

if TYPE_CHECKING:
    import pandas
    from tokenizers import Tokenizer

PACKAGE_FILE = "package.json"
PACKAGE_VERSION = 1
CLASSIFIER_FILE, CLASSIFIER_WEIGHTS_FILE = "classifier.json", "classifier.safetensors"

PARAMS: dict[str, Any] = {"task": "generate", "max_tokens": 64, "temperature": 0.8, "top_k": 40, "seed": 0}
"""What a caller may choose, with what holds otherwise. Temperature 0 takes the most probable token; `max_tokens` ends
where the model's context does."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Classifier:
    """A task model and what it needs to be asked.

    Args:
        model: (N, T) tokens -> (N, classes) logits.
        fragment_tokens: the length of the fragments that it was trained on.
    """

    model: nn.Module
    classes: list[str]
    fragment_tokens: int


class TextModel:
    """A language model, its tokenizer, and a classifier on the same trunk if there is one. Text in, table out."""

    def __init__(self, trunk: Pretrained, tokenizer: Tokenizer, classifier: Classifier | None) -> None:
        self.model = trunk.language_model()
        self.context_tokens = trunk.spec.context_tokens
        self.tokenizer, self.classifier = tokenizer, classifier
        self._token_bytes = token_bytes(tokenizer)

    @property
    def tasks(self) -> list[str]:
        """What can be asked."""
        return ["generate", "score"] + (["classify"] if self.classifier else [])

    def get_raw_model(self) -> TextModel:
        """The model itself, which MLflow gives to those who ask for what its wrapper cannot do."""
        return self

    def predict(self, data: pandas.DataFrame, params: Mapping[str, Any] | None = None) -> pandas.DataFrame:
        """One row for each row of `data`, which has a column `text`.

        Args:
            params: any of `PARAMS`. Task `generate` gives the column `completion`; `score` gives `bits_per_byte` and
                `tokens`; `classify` gives `label` and `probability`.
        """
        import pandas

        return pandas.DataFrame(self.answer([str(text) for text in data["text"]], params or {}))

    def answer(self, texts: Sequence[str], params: Mapping[str, Any]) -> list[Row]:
        """The same as `predict`, from plain values to plain values.

        Raises:
            ConfigError: the model has no such task.
        """
        chosen = {**PARAMS, **params}
        if chosen["task"] not in self.tasks:
            raise ConfigError(f"this model has no task {chosen['task']!r}", allowed=", ".join(self.tasks))
        tokens = [self.tokenizer.encode(normalise(text.encode())).ids for text in texts]
        with torch.inference_mode():
            if chosen["task"] == "score":
                return [self._score(ids) for ids in tokens]
            if chosen["task"] == "classify":
                return [self._classify(ids) for ids in tokens]
            return self._complete(tokens, chosen)

    def _complete(self, tokens: list[list[int]], params: Mapping[str, Any]) -> list[Row]:
        prompts = [ids or [END_ID] for ids in tokens]
        max_tokens = min(params["max_tokens"], self.context_tokens - 1)
        sampling = Sampling(params["temperature"], params["top_k"])
        rows = generate(self.model, prompts, max_tokens, sampling, Stop(END_ID), params["seed"])
        return [{"completion": self.tokenizer.decode(row)} for row in rows]

    def _score(self, ids: list[int]) -> Row:
        """The text and its end, in windows of one context as in the evaluation; a text without labels has no score."""
        ids, objective, total = [*ids, END_ID], NextToken(), LossSum()
        for start in range(0, len(ids) - 1, self.context_tokens):
            window = torch.tensor([ids[start : start + self.context_tokens + 1]])
            place = torch.arange(window.shape[1])[None]
            example = objective.prepare({"tokens": window, "segment": torch.zeros_like(window), "position": place}, 0)
            labels = example.labels[example.labels != IGNORE]
            nats = objective.loss(self.model, example).double().item()
            total += LossSum(nats, len(labels), int(self._token_bytes[labels].sum()))
        return {"bits_per_byte": total.bits_per_byte if total.bytes else math.nan, "tokens": len(ids)}

    def class_probabilities(self, text: str) -> dict[str, float]:
        """The probability of each class for a text; they sum to 1.

        Raises:
            ConfigError: the model has no classifier.
            ValueError: it is not text: a NUL, half a surrogate pair.
        """
        if self.classifier is None:
            raise ConfigError("this model has no classifier", fix="publish one from a recipe with labels")
        with torch.inference_mode():
            probabilities = self._probabilities(self.tokenizer.encode(normalise(text.encode())).ids)
        return dict(zip(self.classifier.classes, probabilities.tolist(), strict=True))

    def _classify(self, ids: list[int]) -> Row:
        assert self.classifier is not None
        probabilities = self._probabilities(ids)
        best = int(probabilities.argmax())
        return {"label": self.classifier.classes[best], "probability": probabilities[best].item()}

    def _probabilities(self, ids: list[int]) -> Tensor:
        """The mean over the text's fragments; a last one that is not whole counts only if there is no other."""
        assert self.classifier is not None
        fragments = torch.split(torch.tensor(ids or [END_ID]), self.classifier.fragment_tokens)
        whole = [fragment for fragment in fragments if len(fragment) == self.classifier.fragment_tokens]
        logits: Tensor = self.classifier.model(torch.stack(whole or [fragments[0]]))
        return logits.softmax(dim=-1).mean(dim=0)


def read_classifier(trunk: Pretrained, description: Path, weights: Path, sha256: str) -> Classifier:
    """The task model on a trunk.

    Args:
        description: a `classifier.json`.
        sha256: what the file of its weights must hash to.
    """
    body = read_json(description)
    model = task_model(trunk.spec, trunk.shape, len(body["classes"]), body["pool"], seed=0)
    model.load_state_dict(load_weights(weights, sha256))
    return Classifier(model.eval(), body["classes"], body["fragment_tokens"])


def _load_pyfunc(data_path: str) -> TextModel:
    """The entry point that MLflow calls."""
    folder = Path(data_path)
    files = check_package(folder)
    trunk = Pretrained.find(folder, files[WEIGHTS_FILE])
    classifier = None
    if CLASSIFIER_FILE in files:
        weights = CLASSIFIER_WEIGHTS_FILE
        classifier = read_classifier(trunk, folder / CLASSIFIER_FILE, folder / weights, files[weights])
    return TextModel(trunk, load_tokenizer(folder / TOKENIZER_FILE), classifier)


def check_package(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a package, after comparing them.

    Raises:
        CheckpointError: a file is missing, edited or cut short, or the package comes from a newer version.
    """
    package = read_json(folder / PACKAGE_FILE)
    if package["version"] > PACKAGE_VERSION:
        raise CheckpointError(
            f"{folder / PACKAGE_FILE} has version {package['version']}",
            allowed=f"versions up to {PACKAGE_VERSION}",
            fix="upgrade foundation-pipeline",
        )
    files: dict[str, str] = package["files"]
    for name, expected in files.items():
        path = folder / name
        found = sha256_file(path) if path.is_file() else "no file"
        if found != expected:
            raise CheckpointError(
                f"{path} is not the file that was packaged: {found}",
                allowed=f"sha256 {expected}",
                fix="download the model again, or publish it again",
            )
    return files
