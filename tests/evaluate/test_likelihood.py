"""The loss on text, whatever the batches."""

import pytest
import torch
from torch.nn import functional as F

from foundation_core.data.loading.loader import on_device
from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.evaluate.likelihood import score_rows
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.language import NextToken
from tests.support.tasks import MODEL, SHAPE, VOCABULARY, write_tokens

LENGTHS = {"a/1": 70, "a/2": 7, "b/1": 101, "b/2": 40}
TOKEN_BYTES = 1 + torch.arange(VOCABULARY) // 20  # rows differ in bytes


@pytest.fixture
def windows(tmp_path):
    write_tokens(tmp_path, "test", LENGTHS)
    return Windows(ShardDataset(tmp_path / "tokens" / "test"), MODEL.context_tokens)


@pytest.fixture
def model():
    return initialize(build(MODEL, SHAPE), seed=0).eval()


def score(model, windows, rows, batch_rows):
    return score_rows(model, NextToken(), windows, rows, TOKEN_BYTES, batch_rows)


def test_bits_per_byte_does_not_depend_on_the_batches_and_a_mean_of_batches_would(model, windows):
    rows = torch.arange(len(windows))
    whole = score(model, windows, rows, batch_rows=100)
    for batch_rows in (1, 2, 3):
        pieces = score(model, windows, rows, batch_rows)
        assert (pieces.labels, pieces.bytes) == (whole.labels, whole.bytes)
        assert pieces.bits_per_byte == pytest.approx(whole.bits_per_byte, rel=1e-6)
    alone = [score(model, windows, rows[i : i + 1], 1).bits_per_byte for i in rows]
    assert sum(alone) / len(alone) != pytest.approx(whole.bits_per_byte, rel=1e-3)


def test_the_order_of_the_rows_does_not_matter(model, windows):
    rows = torch.arange(len(windows))
    forth, back = (score(model, windows, order, batch_rows=2) for order in (rows, rows.flip(0)))
    assert back.total == pytest.approx(forth.total, rel=1e-6)


def test_a_row_counts_the_labels_and_bytes_that_it_predicts(model, windows):
    batch = on_device(windows.gather(torch.tensor([0])), torch.device("cpu"))
    found = score(model, windows, torch.tensor([0]), batch_rows=1)
    assert batch["segment"].max() == 0, "the first row lies within one document"
    labels = batch["tokens"][0, 1:]
    expected = F.cross_entropy(model(batch["tokens"][:, :-1])[0], labels, reduction="sum")
    assert found.total == pytest.approx(expected.item(), rel=1e-5)
    assert (found.labels, found.bytes) == (MODEL.context_tokens, int(TOKEN_BYTES[labels].sum()))


def test_nothing_is_left_to_backpropagate(model, windows):
    score(model, windows, torch.tensor([0]), batch_rows=1)
    assert all(parameter.grad is None for parameter in model.parameters())
