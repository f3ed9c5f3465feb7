"""What objectives must know of a tokenizer: the entries that stand for no text, and where words begin."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer

from foundation_core.data.tokens.byte_level import END_ID, MASK, SENTINEL, START
from foundation_core.objectives.base import SpecialTokens


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """The special tokens that a tokenizer has; the others are None."""
    sentinels = list[int]()
    while (number := tokenizer.token_to_id(SENTINEL.format(len(sentinels)))) is not None:
        sentinels.append(number)
    return SpecialTokens(
        vocabulary=tokenizer.get_vocab_size(),
        end=END_ID,
        start=tokenizer.token_to_id(START),
        mask=tokenizer.token_to_id(MASK),
        sentinels=tuple(sentinels),
        word_edges=word_edges(tokenizer),
    )


def word_edges(tokenizer: Tokenizer) -> torch.Tensor:
    """(V, 2) bool: whether a token's first and its last character are of a word: letters, digits, underscores."""
    edges = torch.zeros(tokenizer.get_vocab_size(), 2, dtype=torch.bool)
    special = tokenizer.get_added_tokens_decoder()
    plain = [number for number in tokenizer.get_vocab().values() if number not in special]
    before, skipped = _something_before(tokenizer, plain)
    for number in plain:
        text = tokenizer.decode([*before, number])[skipped:]
        edges[number] = torch.tensor([_is_of_a_word(text[:1]), _is_of_a_word(text[-1:])])
    return edges


def _something_before(tokenizer: Tokenizer, plain: list[int]) -> tuple[list[int], int]:
    """A token of letters, and its characters: behind it a token keeps its space, which begins no text."""
    for number in plain:
        text = tokenizer.decode([number])
        if text.isascii() and text.isalpha() and tokenizer.decode([number, number]).startswith(text):
            return [number], len(text)
    return [], 0


def _is_of_a_word(character: str) -> bool:
    return character.isalnum() or character in ("_", "\N{REPLACEMENT CHARACTER}")  # a part of a longer character
