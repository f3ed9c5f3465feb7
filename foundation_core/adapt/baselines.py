"""What counting gives: the yardsticks for task models. Each learns from the same rows as they do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from foundation_core.adapt.classify import confusion
from foundation_core.adapt.tasks import Tally, Task, TaskData, TaskRows
from foundation_core.adapt.transfer import Pretrained
from foundation_core.adapt.write import WritingTask, compared
from foundation_core.objectives.base import IGNORE

_COLUMNS = 32
STRENGTHS = (1.0, 10.0, 100.0)
"""Inverse regularisation, C: each is tried, the best on validation is kept."""


class LettersInARow:
    """TF-IDF of 2 to 4 letters in a row, and logistic regression; the same texts give the same answers.

    Letters within words know parts of identifiers; on source code they do better than whole words.
    """

    label = "TF-IDF + logistic regression"

    def answer(self, task: Task, data: TaskData, train: TaskRows, trunk: Pretrained) -> Tally:
        """The answers of the strength that is best on validation."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier

        vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=2, sublinear_tf=True)

        def texts(rows: TaskRows) -> list[str]:
            decoded: list[str] = data.facts.text.decode_batch(rows.tensors["inputs"].tolist())
            return decoded

        features = [vectorizer.fit_transform(texts(train)), *(vectorizer.transform(texts(r)) for r in _held_out(data))]
        # One class against the rest, in the dual: a third of the time of one model of all classes, and scores alike.
        models = [OneVsRestClassifier(LogisticRegression(C=c, solver="liblinear", dual=True)) for c in STRENGTHS]
        return _best_on_validation(models, features, task, data, train)


class NearValues:
    """A support vector machine with a radial kernel on a sample's values; of long ones, on their course in outline."""

    label = "RBF-SVM on values"

    def answer(self, task: Task, data: TaskData, train: TaskRows, trunk: Pretrained) -> Tally:
        """The answers of the strength that is best on validation."""
        from sklearn.svm import SVC

        features = [outline(rows.tensors["inputs"]).numpy() for rows in (train, *_held_out(data))]
        return _best_on_validation([SVC(C=c) for c in STRENGTHS], features, task, data, train)


class LastValue:
    """Repeat the last value that was seen."""

    label = "the last value again"

    def answer(self, task: Task, data: TaskData, train: TaskRows, trunk: Pretrained) -> Tally:
        """The squared errors on the test, summed."""
        patch_width = trunk.spec.patch[1]
        values = data.test.tensors["values"]
        last, wanted = values[..., -patch_width - 1, None], values[..., -patch_width:]
        return {"squares": (wanted - last).double().square().sum().item(), "count": wanted.numel()}


class UsualClass:
    """For each token the class that it most often has in training."""

    label = "each token's usual class"

    def answer(self, task: Task, data: TaskData, train: TaskRows, trunk: Pretrained) -> Tally:
        """The usual classes of the test's tokens; of one that training has not, the usual class of all."""
        classes, vocabulary = len(data.classes), trunk.shape.vocabulary
        tokens, labels = train.tensors["inputs"].flatten(), train.labels.flatten()
        wanted = labels != IGNORE
        counts = torch.bincount(tokens[wanted] * classes + labels[wanted], minlength=vocabulary * classes)
        counts_VC = counts.view(vocabulary, classes)
        usual = torch.where(counts_VC.any(1), counts_VC.argmax(1), counts_VC.sum(0).argmax())
        test_labels = data.test.labels.flatten()
        asked = test_labels != IGNORE
        answers = usual[data.test.tensors["inputs"].flatten()]
        return {"confusion": confusion(test_labels[asked], answers[asked], classes).tolist(), "nats": 0.0}


class FunctionName:
    """A function's name as a sentence: `get_file_size` says "Get file size"."""

    label = "the function's name in words"

    def answer(self, task: Task, data: TaskData, train: TaskRows, trunk: Pretrained) -> Tally:
        """What the names have in common with the references."""
        return compared([_name_in_words(prompt) for prompt in data.test.prompts], data.test.references)


class PromptAgain:
    """The prompt once more: what it has in common with what should follow it."""

    label = "the prompt again"

    def answer(self, task: Task, data: TaskData, train: TaskRows, trunk: Pretrained) -> Tally:
        """What prompts have in common with the references."""
        return compared(data.test.prompts, data.test.references)


class UsualText:
    """The text that training holds most often."""

    label = "the most frequent text"

    def answer(self, task: Task, data: TaskData, train: TaskRows, trunk: Pretrained) -> Tally:
        """What it has in common with the references."""
        usual = min(Counter(train.references).items(), key=lambda entry: (-entry[1], entry[0]))[0]
        return cast(WritingTask, task).compared([usual] * len(data.test), data.test, data.facts)


def _name_in_words(source: str) -> str:
    found = re.search(r"\bdef\s+(\w+)", source)
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", found[1]).replace("_", " ").split() if found else []
    return " ".join(words).capitalize()


def outline(values: Tensor) -> Tensor:
    """(N, features) all values of a sample; where it is longer than `_COLUMNS`, means of so many parts of its length.

    A spectrogram becomes its mel bands in a few parts of its time, which an SVM can learn from a thousand samples.
    """
    if values.shape[-1] > _COLUMNS:
        values = F.adaptive_avg_pool2d(values, (values.shape[-2], _COLUMNS))
    return values.flatten(1)


def _held_out(data: TaskData) -> tuple[TaskRows, TaskRows]:
    return data.validation, data.test


def _best_on_validation(
    models: Sequence[Any], features: Sequence[Any], task: Task, data: TaskData, train: TaskRows
) -> Tally:
    """Fit each, keep the best on validation, and let it answer the test.

    Args:
        features: of the training, validation and test rows.
    """
    from threadpoolctl import threadpool_limits

    classes = len(data.classes)

    def answers(model: Any, features: Any, rows: TaskRows) -> Tally:
        predicted = torch.from_numpy(model.predict(features))
        return {"confusion": confusion(rows.labels, predicted, classes).tolist(), "nats": 0.0}

    with threadpool_limits(1):  # the products are too small to share out, and one thread always adds in one order
        fitted = [model.fit(features[0], train.labels.numpy()) for model in models]
        best = max(fitted, key=lambda model: task.value(answers(model, features[1], data.validation)))
        return answers(best, features[2], data.test)
