"""Where words begin is found whatever way a tokenizer spells the space in front of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from foundation_core.objectives.masked import first_of_word
from foundation_core.objectives.special import word_edges

TEXTS = ["the first of the three cats sat on the mat of the house", "está aquí, ¿no?: 12 times_over"] * 20


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet))
    return tokenizer


def _metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=60, unk_token="<unk>", special_tokens=["<unk>"])
    )
    return tokenizer


def _as_llama() -> Tokenizer:
    """Its decoder takes the space away from in front of a text: of a token alone, the space that it begins with."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    words = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.pre_tokenizer = words
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=80))
    return tokenizer


TOKENIZERS: Mapping[str, Callable[[], Tokenizer]] = {
    "byte level": _byte_level,
    "metaspace": _metaspace,
    "as Llama's": _as_llama,
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_token_behind_a_space_begins_a_word_and_others_go_on_with_one(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    text = "the threes of the houses mattest"
    tokens = torch.tensor([tokenizer.encode(text).ids])
    first = first_of_word(tokens, torch.zeros_like(tokens), word_edges(tokenizer))
    words = [tokens[0, first[0] == place].tolist() for place in first[0].unique()]
    assert len(words) < tokens.shape[1], "control: a word of several tokens"
    told = [tokenizer.decode(word).strip() for word in words]
    assert [word for word in told if word] == text.split(), "a space that is a token of its own is no word"
