"""The baseline learns, chooses on validation, and repeats itself."""

import random

import pytest
import torch

from foundation_core.evaluate import baseline
from foundation_core.evaluate.baseline import STRENGTHS, Labelled, score_baseline

WORDS = (("apple", "pear", "plum"), ("iron", "zinc", "lead"), ("oak", "elm", "ash"))


def texts(rows_per_class, seed, noise=0.3):
    draw = random.Random(seed)
    labels = [label for label in range(3) for _ in range(rows_per_class)]
    every = [word for words in WORDS for word in words]

    def words(label):
        return " ".join(draw.choice(every if draw.random() < noise else WORDS[label]) for _ in range(6))

    return Labelled([words(label) for label in labels], torch.tensor(labels))


@pytest.fixture(scope="module")
def parts():
    return texts(20, seed=0), texts(10, seed=1), texts(10, seed=2)


def test_the_baseline_learns_and_is_lost_on_labels_without_meaning(parts):
    train, validation, test = parts
    assert score_baseline(*parts, classes=3).macro_f1 > 0.8
    shuffled = Labelled(train.texts, train.labels[torch.randperm(60, generator=torch.Generator().manual_seed(0))])
    assert score_baseline(shuffled, validation, test, classes=3).macro_f1 < 0.6


def test_the_baseline_repeats_itself(parts):
    assert score_baseline(*parts, classes=3) == score_baseline(*parts, classes=3)


def test_the_strength_is_the_best_on_validation_whatever_the_test_says(parts, monkeypatch):
    train, validation, test = parts
    found = score_baseline(train, validation, test, classes=3)
    assert found.strength in STRENGTHS
    turned = Labelled(test.texts, (test.labels + 1) % 3)
    assert score_baseline(train, validation, turned, classes=3).strength == found.strength

    scores = {}
    for strength in STRENGTHS:
        monkeypatch.setattr(baseline, "STRENGTHS", (strength,))
        scores[strength] = score_baseline(train, validation, validation, classes=3).macro_f1
    assert scores[found.strength] == max(scores.values())
