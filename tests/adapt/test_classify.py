"""Classification as a sum and a count, and the answers that are scored."""

import pytest
import torch
from torch.nn import functional as F

from foundation_core.adapt.classify import Classification, answer, confusion
from foundation_core.adapt.transfer import tagging_model, task_model
from foundation_core.objectives.base import IGNORE
from foundation_core.specs import AugmentSpec, OptimizerSpec
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.step import train_step
from tests.support.tasks import MODEL, SHAPE, VOCABULARY

CLASSES = 3
LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 1])


@pytest.fixture
def model():
    return task_model(MODEL, SHAPE, CLASSES, "mean", seed=0)


@pytest.fixture
def batch():
    tokens = torch.randint(VOCABULARY, (7, 16), generator=torch.Generator().manual_seed(0))
    return {"inputs": tokens, "labels": LABELS}


def part(batch, rows):
    return {name: values[rows] for name, values in batch.items()}


def summed(model, batch):
    objective = Classification()
    example = objective.prepare(batch, seed=0)
    return objective.loss(model, example), example.count


def test_the_loss_is_the_summed_cross_entropy_of_the_rows(model, batch):
    loss, count = summed(model, batch)
    expected = sum(F.cross_entropy(model(batch["inputs"][i : i + 1]), LABELS[i : i + 1]) for i in range(7))
    torch.testing.assert_close(loss, expected)
    assert count == 7


def test_rows_without_a_label_do_not_count(model, batch):
    padded = {**batch, "labels": torch.where(torch.arange(7) < 4, LABELS, IGNORE)}
    loss, count = summed(model, padded)
    torch.testing.assert_close(loss, summed(model, part(batch, slice(4)))[0])
    assert count == 4


def gradient_norm(batches):
    model = task_model(MODEL, SHAPE, CLASSES, "mean", seed=0)
    engine = TorchEngine(model, EngineRequest(OptimizerSpec()))
    return train_step(engine, Classification(), batches, lr=1e-3, seed=0).grad_norm


def test_the_gradient_does_not_depend_on_micro_batching(batch):
    whole = gradient_norm([batch])
    pieces = gradient_norm([part(batch, slice(5)), part(batch, slice(5, 7))])
    assert pieces == pytest.approx(whole, rel=1e-5)
    other_rows = gradient_norm([part(batch, slice(5)), part(batch, slice(4, 6))])
    assert other_rows != pytest.approx(whole, rel=1e-3)


def test_confusion_counts_truth_by_answer():
    found = confusion(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 0, 2]), CLASSES)
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_answers_are_the_largest_logits_however_they_are_batched(model, batch):
    found = answer(model, batch["inputs"], LABELS, CLASSES, batch_rows=7)
    expected = confusion(LABELS, model(batch["inputs"]).argmax(-1), CLASSES)
    assert found["confusion"] == expected.tolist()
    assert found["nats"] == pytest.approx(summed(model, batch)[0].item(), rel=1e-6)
    in_pieces = answer(model, batch["inputs"], LABELS, CLASSES, batch_rows=2)
    assert in_pieces["confusion"] == found["confusion"]
    assert in_pieces["nats"] == pytest.approx(found["nats"], rel=1e-6)


def test_answering_leaves_the_model_in_the_mode_that_it_was_in(model, batch):
    for training in (True, False):
        model.train(training)
        answer(model, batch["inputs"], LABELS, CLASSES)
        assert model.training is training


def test_tokens_are_classified_like_rows_and_those_without_a_label_do_not_count(batch):
    model = tagging_model(MODEL, SHAPE, CLASSES, seed=0)
    labels = batch["inputs"] % CLASSES
    labels[:, 10:] = IGNORE
    loss, count = summed(model, {"inputs": batch["inputs"], "labels": labels})
    logits = model(batch["inputs"])[:, :10].flatten(0, 1)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels[:, :10].flatten(), reduction="sum"))
    assert count == 70
    assert sum(map(sum, answer(model, batch["inputs"], labels, CLASSES)["confusion"])) == 70


def test_a_change_depends_on_the_seed_and_the_number_of_the_sample_alone():
    values = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    objective = Classification(AugmentSpec(shift=(2, 2)))

    def moved(rows, seed=0):
        batch = {"inputs": values[rows], "labels": torch.zeros(len(rows), dtype=torch.long), "sample": rows}
        return objective.prepare(batch, seed).inputs["inputs"]

    whole = moved(torch.arange(6))
    assert torch.equal(whole[2:4], moved(torch.tensor([2, 3])))
    assert not torch.equal(whole, values)
    assert not torch.equal(whole, moved(torch.arange(6), seed=1))
