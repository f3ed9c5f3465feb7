"""What the experiments rest on: right translations, rows whose answers are in them, damage that is undone."""

from __future__ import annotations

import pytest
import torch

from experiments import recall
from experiments.heads import attentions, without_heads
from experiments.number_words import HIGHEST, english, spanish
from experiments.translation import vectors_in_another_order, vectors_of_other_sentences, words_in_another_order
from experiments.translator import END, PAD, TRUNK, Words, layout_of, numbers_of_split, pairs_of
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.transformer import EncoderDecoder
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec


@pytest.fixture(scope="module")
def words() -> Words:
    return Words()


@pytest.fixture
def translator(words: Words) -> EncoderDecoder:
    spec = ModelSpec(family="encoder_decoder", trunk=TRUNK, context_tokens=16)
    model = initialize(build(spec, SampleShape(vocabulary=len(words.words))), seed=0)
    assert isinstance(model, EncoderDecoder)
    return model.eval()


@pytest.mark.parametrize(
    ("number", "in_english", "in_spanish"),
    [
        (0, "zero", "cero"),
        (16, "sixteen", "dieciséis"),
        (21, "twenty one", "veintiuno"),
        (100, "one hundred", "cien"),
        (101, "one hundred one", "ciento uno"),
        (555, "five hundred fifty five", "quinientos cincuenta y cinco"),
        (1000, "one thousand", "mil"),
        (2003, "two thousand three", "dos mil tres"),
        (21_000, "twenty one thousand", "veintiún mil"),
        (31_700, "thirty one thousand seven hundred", "treinta y un mil setecientos"),
        (99_999, "ninety nine thousand nine hundred ninety nine", "noventa y nueve mil novecientos noventa y nueve"),
    ],
)
def test_numbers_are_spelt_by_the_rules_of_both_languages(number: int, in_english: str, in_spanish: str):
    assert (" ".join(english(number)), " ".join(spanish(number))) == (in_english, in_spanish)


def test_no_two_numbers_are_spelt_alike():
    for language in (english, spanish):
        assert len({tuple(language(number)) for number in range(HIGHEST + 1)}) == HIGHEST + 1


def test_no_number_is_trained_on_and_asked_for():
    train, test = numbers_of_split()
    assert set(train) & set(test) == set()


def test_what_is_shuffled_is_what_the_experiment_says(words: Words, translator: EncoderDecoder):
    pairs = pairs_of(numbers_of_split()[1][:64], words)
    plain = translator.encode(pairs.source, layout_of(pairs.source)).x
    same_set = vectors_in_another_order(translator, pairs).x
    torch.testing.assert_close(same_set.sum(dim=1), plain.sum(dim=1), rtol=0, atol=1e-4)
    for change in (vectors_in_another_order, words_in_another_order, vectors_of_other_sentences):
        changed = change(translator, pairs).x
        assert ((changed - plain).abs().amax(dim=(1, 2)) > 0.1).float().mean() > 0.7
        if change is vectors_in_another_order:  # ends and padding stay where they were
            kept = (pairs.source == END) | (pairs.source == PAD)
            assert torch.equal(changed[kept], plain[kept])


def test_a_head_that_was_removed_comes_back(words: Words, translator: EncoderDecoder):
    attention = attentions(translator)["decoder 2 reads"]
    before = attention.out.weight.clone()
    with without_heads(attention, [1]):
        gone = attention.out.weight.eq(0).all(dim=0).nonzero()[:, 0].tolist()
    assert gone == list(range(16, 32))
    assert torch.equal(attention.out.weight, before)


def test_every_question_of_a_recall_row_has_its_answer_at_the_distance_it_names():
    tokens_BT, answer_BT, distance_BT = recall.rows(8, torch.Generator().manual_seed(0))
    asked = distance_BT.nonzero().tolist()
    assert len(asked) > 100
    for row, place in asked:
        key = int(tokens_BT[row, place]) - recall.FILLER
        told = int(tokens_BT[row, place - distance_BT[row, place]]) - recall.FILLER - recall.KEYS
        assert (told // recall.VALUES, told % recall.VALUES) == (key, int(answer_BT[row, place]))


def test_behind_a_window_nothing_further_than_two_windows_reaches_the_answer():
    spec = ModelSpec(trunk=recall.TRUNK, context_tokens=recall.T)
    model = initialize(build(spec, SampleShape(vocabulary=recall.VOCABULARY)), seed=0)
    model.trunk.score_bias = recall.Window(recall.WINDOW)
    tokens = recall.rows(1, torch.Generator().manual_seed(0))[0]
    reach = recall.TRUNK.depth * (recall.WINDOW - 1)
    for behind, reaches in ((reach, True), (reach + 1, False)):
        edited = tokens.clone()
        edited[0, -1 - behind] = (edited[0, -1 - behind] + 1) % recall.VOCABULARY
        assert torch.equal(model(edited)[0, -1], model(tokens)[0, -1]) is not reaches
