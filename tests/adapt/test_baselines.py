"""The baselines learn, choose on validation, and repeat themselves."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from foundation_core.adapt import baselines
from foundation_core.adapt.baselines import LastValue, LettersInARow, NearValues
from foundation_core.adapt.fragments import PackageOfFragment
from foundation_core.adapt.tasks import Facts, TaskData, TaskRows
from foundation_core.adapt.transfer import Pretrained
from foundation_core.adapt.values import ClassOfSample, NextValues
from foundation_core.shape import SampleShape
from foundation_core.specs import FinetuneSpec, ModelSpec

WORDS = (("apple", "pear", "plum"), ("iron", "zinc", "lead"), ("oak", "elm", "ash"))


CLASSES = ["fruit", "metal", "tree"]
TRUNK = Pretrained(ModelSpec(patch=(1, 4)), SampleShape(channels=1, height=1, width=16), Path(), "")
TASK = PackageOfFragment()


@pytest.fixture(scope="module")
def tokenizer():
    """One token a word."""
    words = {word: number for number, word in enumerate(word for words in WORDS for word in words)}
    tokenizer = Tokenizer(models.WordLevel(words))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def texts(rows_per_class, seed, noise=0.3):
    """Rows of six words, most of them of their class."""
    draw = random.Random(seed)
    labels = [label for label in range(3) for _ in range(rows_per_class)]
    every = range(9)
    rows = [
        [draw.choice(every if draw.random() < noise else every[3 * label : 3 * label + 3]) for _ in range(6)]
        for label in labels
    ]
    tensors = {"inputs": torch.tensor(rows), "labels": torch.tensor(labels)}
    return TaskRows(tensors, [f"{number}" for number in range(len(labels))])


@pytest.fixture(scope="module")
def data(tokenizer):
    facts = Facts(FinetuneSpec(), CLASSES, tokenizer)
    return TaskData(facts, texts(20, seed=0), texts(10, seed=1), texts(10, seed=2))


def macro_f1(data, train=None):
    return TASK.value(LettersInARow().answer(TASK, data, train or data.train, TRUNK))


def relabelled(rows, labels):
    return TaskRows({**rows.tensors, "labels": labels}, rows.documents)


def test_the_baseline_learns_and_is_lost_on_labels_without_meaning(data):
    assert macro_f1(data) > 0.8
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert macro_f1(data, relabelled(data.train, data.train.labels[order])) < 0.6


def test_the_baseline_repeats_itself(data):
    one, other = (LettersInARow().answer(TASK, data, data.train, TRUNK) for _ in range(2))
    assert one == other


def test_the_strength_is_the_best_on_validation_whatever_the_test_says(data, monkeypatch):
    validated = replace(data, test=data.validation)
    scores = {}
    for strength in baselines.STRENGTHS:
        with monkeypatch.context() as patch:
            patch.setattr(baselines, "STRENGTHS", (strength,))
            scores[strength] = (macro_f1(validated), LettersInARow().answer(TASK, data, data.train, TRUNK))
    best = max(scores, key=lambda strength: scores[strength][0])
    found = LettersInARow().answer(TASK, data, data.train, TRUNK)
    assert found == scores[best][1]
    turned = replace(data, test=relabelled(data.test, (data.test.labels + 1) % 3))
    columns = torch.tensor(found["confusion"]).sum(0)
    other = LettersInARow().answer(TASK, turned, data.train, TRUNK)
    assert torch.equal(torch.tensor(other["confusion"]).sum(0), columns), "the answers are the same"


def test_an_svm_learns_what_lies_near_and_looks_at_long_samples_in_outline():
    draw = torch.Generator().manual_seed(0)

    def samples(per_class, width):
        labels = torch.arange(3).repeat_interleave(per_class)
        middle = torch.tensor([-1.0, 0.0, 1.0])[labels][:, None, None, None]
        noise = torch.randn(len(labels), 1, 2, width, generator=draw)
        return TaskRows({"inputs": middle + noise, "labels": labels}, ["x"] * len(labels))

    for width in (8, 640):
        data = TaskData(Facts(FinetuneSpec(), CLASSES), *(samples(count, width) for count in (20, 10, 10)))
        task = ClassOfSample()
        assert task.value(NearValues().answer(task, data, data.train, TRUNK)) > 0.8
    assert baselines.outline(torch.randn(2, 1, 4, 640)).shape == (2, 4 * 32)


def test_repeating_the_last_value_is_right_about_a_series_that_stands_still_and_wrong_about_one_that_climbs():
    def error(values):
        rows = TaskRows({"values": values}, ["x"])
        task = NextValues()
        data = TaskData(Facts(FinetuneSpec(), []), rows, rows, rows)
        return task.scores(LastValue().answer(task, data, rows, TRUNK))

    assert error(torch.full((1, 1, 1, 16), 3.0))["squared_error"] == 0
    climbing = torch.arange(16.0).view(1, 1, 1, 16)
    assert error(climbing)["squared_error"] == pytest.approx((1 + 4 + 9 + 16) / 4)
