"""How finely a tokenizer cuts: the figures of a bounded sample of the validation split, by language."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foundation_core.data.shards.dataset import arrow_bytes
from foundation_core.data.tokens import fertility as measuring
from foundation_core.data.tokens.byte_level import load_tokenizer, train_tokenizer
from foundation_core.data.tokens.fertility import ALL, fertility
from foundation_core.data.units.corpus import Corpus, Part
from foundation_core.data.units.work import KEPT_FILE, Unit

ENGLISH = "The farmer brings the melons to the market on Tuesday, and in the evening he comes back with the others. "
SPANISH = "El campesino lleva los melones al mercado el martes, y por la noche vuelve a su casa con los demás. "


def corpus_of(folder: Path, texts: list[tuple[str, str]]) -> Corpus:
    """A corpus of texts, each with its split, two in a part."""
    parts = []
    for first in range(0, len(texts), 2):
        rows = [
            {"document": f"d/{first + at:04d}", "group": "", "bytes": 0, "sha256": "", "text": text}
            for at, (text, _) in enumerate(texts[first : first + 2])
        ]
        unit = Unit(folder / f"read-{first}", "read")
        unit.commit({KEPT_FILE: arrow_bytes(pa.Table.from_pylist(rows))})
        parts.append(
            Part.of(unit, folder / f"part-{first}").with_splits([split for _, split in texts[first : first + 2]])
        )
    return Corpus(parts)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that has learned English alone."""
    path = tmp_path_factory.mktemp("tokenizer") / f"{hashlib.sha256(ENGLISH.encode()).hexdigest()[:8]}.json"
    train_tokenizer([ENGLISH * 3], 310).save(str(path))
    return path


def test_the_figures_are_those_of_the_validation_texts_and_tell_languages_apart(
    tmp_path: Path, tokenizer: Path
) -> None:
    texts = [(ENGLISH * 2, "validation"), (SPANISH, "validation"), (SPANISH * 3, "train"), (ENGLISH, "validation")]
    found = fertility(corpus_of(tmp_path, texts), tokenizer)
    assert list(found) == [ALL, "en", "es"]
    assert [found[name]["texts"] for name in found] == [3, 2, 1]
    load = load_tokenizer(tokenizer)
    for name, validation in {
        "en": [ENGLISH * 2, ENGLISH],
        "es": [SPANISH],
        ALL: [ENGLISH * 2, ENGLISH, SPANISH],
    }.items():
        tokens = sum(len(load.encode(text).ids) for text in validation)
        words = sum(len(text.split()) for text in validation)
        assert found[name]["words"] == words
        assert found[name]["tokens_per_word"] == pytest.approx(tokens / words)
        assert found[name]["bytes_per_token"] == pytest.approx(sum(len(text.encode()) for text in validation) / tokens)
    assert found["es"]["tokens_per_word"] > 1.5 * found["en"]["tokens_per_word"]


def test_the_sample_is_bounded_and_reaches_from_the_first_text_to_the_last(
    tmp_path: Path, tokenizer: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(measuring, "_SAMPLED", 4)
    monkeypatch.setattr(measuring, "_READ_CHARACTERS", 30)
    texts = [(f"text {'x' * number} " * 20, "validation") for number in range(15)]
    corpus = corpus_of(tmp_path, texts)
    assert measuring._sample(corpus) == [texts[number][0][:30] for number in (0, 4, 8, 12)]
    assert fertility(corpus, tokenizer)[ALL]["texts"] == 4


def test_without_the_library_there_is_one_figure(tmp_path: Path, tokenizer: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(measuring, "find_spec", lambda name: None)
    found = fertility(corpus_of(tmp_path, [(ENGLISH, "validation"), ("", "validation")]), tokenizer)
    assert list(found) == [ALL]
    assert found[ALL]["texts"] == 2
