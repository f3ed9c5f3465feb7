"""A byte-level tokenizer as data: the patterns that cut a text into words, and what cuts a word into tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from foundation_core.data.tokens.byte_level import MASK
from foundation_core.evaluate.anatomy_parts import Described, refuse

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_OF_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How a byte-level pre-tokenizer cuts by itself."""
_MASK_AS_TYPED = "[MASK]"
"""As people type it who know BERT."""


def describe_tokenizer(tokenizer: Tokenizer) -> Described:
    """What the page needs to encode a text as this tokenizer does, and to spell its tokens.

    Raises:
        ConfigError: it is not byte-level, or does more to a text than to cut it.
    """
    body = json.loads(tokenizer.to_str())
    patterns, model = list(_patterns(body["pre_tokenizer"])), body["model"]
    before, spelt, behind = _around(patterns)
    plain = spelt and not body["normalizer"] and all(pattern.isascii() for pattern in behind)
    if not plain or model["type"] not in _CUTS:
        refuse("a tokenizer that is not byte-level")
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    special = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    alias = {_MASK_AS_TYPED: special[MASK]} if MASK in special else {}
    return {
        "patterns": [*before, *behind],
        "cut": {"kind": model["type"], **_CUTS[model["type"]](model)},
        "tokens": [by_id[number] for number in sorted(by_id)],
        "special": {**special, **alias},
    }


_SPELL = "spell the bytes"
"""Stands, in a list of patterns, for the step after which a word is spelt with one character for each byte."""


def _around(patterns: list[str]) -> tuple[list[str], bool, list[str]]:
    """What cuts before bytes are spelt, whether they are, and what cuts behind that: the same, if it is ASCII."""
    at = patterns.index(_SPELL) if _SPELL in patterns else len(patterns)
    return patterns[:at], _SPELL in patterns, patterns[at + 1 :]


def _patterns(part: Mapping[str, Any] | None) -> Iterator[str]:
    """The patterns of a pre-tokenizer, one after the other, and where bytes are spelt."""
    if part is None or part["type"] not in _STEPS:
        refuse(f"a tokenizer that cuts words by {part and part['type']}")
    yield from _STEPS[part["type"]](part)


def _split(part: Mapping[str, Any]) -> Iterator[str]:
    if part["behavior"] != "Isolated" or part["invert"]:
        refuse("a tokenizer that drops what is between words")
    (kind, pattern), *_ = part["pattern"].items()
    yield pattern if kind == "Regex" else re.sub(r"[\\^$.*+?()\[\]{}|/]", r"\\\g<0>", pattern)


def _byte_level(part: Mapping[str, Any]) -> Iterator[str]:
    if part["add_prefix_space"]:
        refuse("a tokenizer that adds spaces")
    if part["use_regex"]:
        yield _OF_GPT2
    yield _SPELL


def _in_order(part: Mapping[str, Any]) -> Iterator[str]:
    for each in part["pretokenizers"]:
        yield from _patterns(each)


def _pairs(model: Mapping[str, Any]) -> Described:
    if model["dropout"] or model["ignore_merges"] or model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
        refuse("a byte-pair tokenizer with marks inside words, dropped pairs or words that are not merged")
    return {"merges": model["merges"]}


def _unigram(model: Mapping[str, Any]) -> Described:
    return {"scores": [score for _, score in model["vocab"]]}


_STEPS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "Split": _split,
    "ByteLevel": _byte_level,
    "Sequence": _in_order,
}
_CUTS: Mapping[str, Callable[[Mapping[str, Any]], Described]] = {"BPE": _pairs, "Unigram": _unigram}
