"""Scores are sums and counts until the last moment."""

import math

import pytest
import sacrebleu
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from foundation_core.adapt.classify import confusion
from foundation_core.adapt.scores import accuracy, chrf, f1_by_class, letter_counts, macro_f1, word_errors
from foundation_core.evaluate.metrics import LossSum, gain, spread

CLASSES = 4
answers = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=40)


@given(answers)
def test_scores_equal_those_of_scikit_learn(pairs):
    truth, answered = torch.tensor(pairs).T
    counts = confusion(truth, answered, CLASSES)
    every = {"labels": list(range(CLASSES)), "zero_division": 0}
    assert accuracy(counts) == pytest.approx(accuracy_score(truth, answered))
    assert macro_f1(counts) == pytest.approx(f1_score(truth, answered, average="macro", **every))
    assert f1_by_class(counts).tolist() == pytest.approx(f1_score(truth, answered, average=None, **every).tolist())


def test_a_score_of_added_counts_is_the_score_of_all_rows_and_a_mean_of_scores_is_not():
    truth = torch.tensor([0, 0, 0, 0, 0, 1, 1, 0])
    answered = torch.tensor([0, 0, 0, 0, 1, 1, 0, 1])
    whole = confusion(truth, answered, 2)
    parts = [confusion(truth[rows], answered[rows], 2) for rows in (slice(0, 5), slice(5, 8))]
    assert torch.equal(sum(parts), whole)
    for score in (accuracy, macro_f1):
        assert score(sum(parts)) == score(whole)
        assert sum(map(score, parts)) / 2 != pytest.approx(score(whole), abs=0.01)


def test_losses_add_up_and_a_mean_of_means_is_another_number():
    short, long = LossSum(total=8.0, labels=2, bytes=4), LossSum(total=30.0, labels=30, bytes=120)
    both = short + long
    assert both == LossSum(38.0, 32, 124)
    assert both.loss == pytest.approx(38 / 32)
    assert both.bits_per_byte == pytest.approx(38 / 124 / math.log(2))
    assert both.perplexity == pytest.approx(math.exp(38 / 32))
    assert (short.loss + long.loss) / 2 != pytest.approx(both.loss, rel=0.5)
    assert (short.bits_per_byte + long.bits_per_byte) / 2 != pytest.approx(both.bits_per_byte, rel=0.5)


def test_guessing_evenly_among_256_bytes_costs_8_bits_a_byte():
    assert LossSum(total=100 * math.log(256), labels=100, bytes=100).bits_per_byte == pytest.approx(8.0)


def test_the_gain_is_beyond_the_spread_where_the_worst_beats_the_best():
    apart, mixed = gain([0.5, 0.6, 0.7], [0.3, 0.4, 0.49]), gain([0.5, 0.6, 0.7], [0.3, 0.4, 0.51])
    assert (apart["worst_pretrained"], apart["best_scratch"], apart["beyond_spread"]) == (0.5, 0.49, True)
    assert (mixed["best_scratch"], mixed["beyond_spread"]) == (0.51, False)
    assert apart["mean_difference"] == pytest.approx(0.6 - 1.19 / 3)


def test_a_spread_names_the_ends_and_keeps_the_order_of_the_seeds():
    assert spread([0.5, 0.75, 0.25]) == {"mean": 0.5, "min": 0.25, "max": 0.75, "values": [0.5, 0.75, 0.25]}


def test_where_less_is_better_the_gain_is_beyond_the_spread_where_the_highest_lies_below_the_lowest():
    apart = gain([0.3, 0.4], [0.5, 0.6], higher_is_better=False)
    assert (apart["worst_pretrained"], apart["best_scratch"], apart["beyond_spread"]) == (0.4, 0.5, True)
    assert not gain([0.3, 0.55], [0.5, 0.6], higher_is_better=False)["beyond_spread"]


TEXTS = st.lists(st.tuples(st.text("ab c", max_size=12), st.text("ab c", max_size=12)), min_size=1, max_size=5)


@given(TEXTS)
def test_chrf_of_summed_counts_is_that_of_sacrebleu(pairs):
    counts = torch.tensor([letter_counts(text, reference) for text, reference in pairs]).sum(0).tolist()
    texts, references = map(list, zip(*pairs, strict=True))
    assert chrf(counts) == pytest.approx(sacrebleu.corpus_chrf(texts, [references]).score, abs=1e-9)


def test_chrf_is_100_for_the_reference_and_0_for_what_shares_no_letter():
    assert chrf(letter_counts("return the sum", "return the sum")) == pytest.approx(100)
    assert chrf(letter_counts("xyz", "return the sum")) == 0


def test_word_errors_are_the_fewest_edits():
    assert word_errors("one two three", "one two three") == 0
    assert word_errors("", "one two three") == 3
    assert word_errors("two three four", "one two three") == 2
    assert word_errors("one two two three", "one two three") == 1
