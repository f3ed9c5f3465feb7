"""The tokenizer that a spec asks for: byte-pair encoding or Unigram, trained, or one that is there already."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from foundation_core.data.tokens.adopted import adopted_tokenizer
from foundation_core.data.tokens.byte_level import END, special_tokens, train_tokenizer
from foundation_core.specs import TokenizerSpec

NAMES = {
    "bpe": "byte-level byte-pair encoding",
    "unigram": "byte-level Unigram",
    "existing": "an existing tokenizer",
}
"""What each kind is called in cards."""


def make_tokenizer(texts: Iterable[str], spec: TokenizerSpec) -> Tokenizer:
    """The tokenizer, trained on the texts unless it is an existing one.

    Raises:
        ConfigError: the texts cannot fill the vocabulary, or an existing one is not fit for use.
        DataError: an existing one is not there, or no tokenizer.
        SetupError: a library that training needs is not installed.
    """
    if spec.kind == "existing":
        return adopted_tokenizer(_path(spec), spec.special)
    if spec.kind == "unigram":
        from foundation_core.data.tokens.unigram import train_unigram

        return train_unigram(texts, spec.vocabulary, [END, *special_tokens(spec.special)])
    return train_tokenizer(texts, spec.vocabulary, spec.special)


def vocabulary_of(spec: TokenizerSpec) -> int:
    """How many entries the tokenizer of a spec has, special tokens included.

    Raises:
        ConfigError, DataError: as `make_tokenizer`, of an existing one.
    """
    if spec.kind != "existing":
        return spec.vocabulary
    size: int = adopted_tokenizer(_path(spec), spec.special).get_vocab_size()
    return size


def _path(spec: TokenizerSpec) -> Path:
    return Path(spec.path or "").expanduser()
