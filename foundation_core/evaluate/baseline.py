"""What counting gives: the yardstick for a task model. TF-IDF of letters in a row, and logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foundation_core.adapt.classify import confusion
from foundation_core.evaluate.metrics import accuracy, macro_f1

STRENGTHS = (1.0, 10.0, 100.0)
"""Inverse regularisation, C: each is tried, the best on validation is kept."""


@dataclass(frozen=True)
class Labelled:
    """Texts and the number of each one's class."""

    texts: Sequence[str]
    labels: Tensor


@dataclass(frozen=True)
class BaselineScore:
    """The test scores of the strength that is best on validation."""

    macro_f1: float
    accuracy: float
    strength: float


def score_baseline(train: Labelled, validation: Labelled, test: Labelled, classes: int) -> BaselineScore:
    """How a classifier on the frequencies of 2 to 4 letters in a row does; the same texts give the same figures.

    Letters within words know parts of identifiers; on source code they do better than whole words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the products are too small to share out, and one thread always adds in one order
        vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=2, sublinear_tf=True)
        features = vectorizer.fit_transform(train.texts)
        # One class against the rest, in the dual: a third of the time of one model of all classes, and scores alike.
        fits = [OneVsRestClassifier(LogisticRegression(C=c, solver="liblinear", dual=True)) for c in STRENGTHS]
        models = [model.fit(features, train.labels.numpy()) for model in fits]

        def answers(model: Any, part: Labelled) -> Tensor:
            predicted = model.predict(vectorizer.transform(part.texts))
            return confusion(part.labels, torch.from_numpy(predicted), classes)

        best = max(models, key=lambda model: macro_f1(answers(model, validation)))
        found = answers(best, test)
    return BaselineScore(macro_f1(found), accuracy(found), best.estimator.C)
