"""A sample of a corpus's texts: how many words they have, and which languages they are in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.errors import SetupError
from foundation_core.pages.reading import Corpus, columns

SAMPLE_BYTES = 4_000_000
"""Texts that are read for a card: every n-th document, so that they are about so many bytes."""
LANGUAGE_TEXTS = 300
"""Of these, texts whose language is looked at."""
_WORD = r"[\pL\pM\pN]+"
_BEGINNING_CHARACTERS = 1000

SAMPLE = pa.schema({"document": pa.string(), "split": pa.string(), "words": pa.int64(), "beginning": pa.large_string()})


class Language(NamedTuple):
    """A language and the share of the texts that are in it."""

    code: str
    fraction: float


def sampled(corpus: Corpus) -> pa.Table:
    """Id, split, number of words and beginning of every n-th document."""
    total = sum(table_bytes(table) for table in columns(corpus.documents, ["bytes", "text"]))
    every = max(1, total // SAMPLE_BYTES)
    return pa.concat_tables([SAMPLE.empty_table(), *_looked_at(corpus, every)])


def table_bytes(table: pa.Table) -> int:
    """Bytes of a table's texts, without a look at them; 0 where there are none."""
    return int(pc.sum(table["bytes"]).as_py() or 0) if {"bytes", "text"} <= set(table.schema.names) else 0


def _looked_at(corpus: Corpus, every: int) -> Iterator[pa.Table]:
    before = 0
    for table in columns(corpus.documents, ["document", "split", "text"]):
        if "text" in table.schema.names:
            some = table.take(pa.array(range(-before % every, len(table), every), pa.int64()))
            words = pc.cast(pc.count_substring_regex(some["text"], _WORD), pa.int64())
            beginning = pc.utf8_slice_codeunits(some["text"], 0, _BEGINNING_CHARACTERS)
            yield pa.table([some["document"], some["split"], words, beginning], schema=SAMPLE)
        before += len(table)


def words_of(corpus: Corpus, texts: pa.Table) -> dict[str, tuple[int, int]]:
    """Words and tokens (end tokens left out) of the sample's texts, by split."""
    found = {}
    for split, dataset in corpus.rows.items():
        chosen = texts.filter(pc.equal(texts["split"], split))
        ids, tokens = chosen["document"].combine_chunks(), 0
        for table in columns(dataset, ["document", "tokens"]):
            if "tokens" in table.schema.names:
                here = table.filter(pc.is_in(table["document"], ids))
                tokens += int(pc.sum(pc.list_value_length(here["tokens"])).as_py() or 0) - len(here)
        found[split] = (int(pc.sum(chosen["words"]).as_py() or 0), tokens)
    return found


def languages(corpus: Corpus, texts: pa.Table) -> tuple[Language, ...]:
    """The languages of the sample's texts, the most frequent first; none without texts or without the library."""
    from foundation_core.data.rules.language import shares

    chosen = texts["beginning"].take(pa.array(range(0, len(texts), max(1, len(texts) // LANGUAGE_TEXTS)), pa.int64()))
    try:
        found = shares(chosen.to_pylist())
    except SetupError:  # the library is not installed, and a card does without
        return ()
    return tuple(Language(code, fraction) for code, fraction in found.items())
