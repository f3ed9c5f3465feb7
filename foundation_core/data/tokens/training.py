"""The tokenizer of a corpus as a unit of work: whoever asks for it does not hold what its training takes.

    corpus --training documents, or a sample of them--> texts --[another process]--> units/tokenizer/..

A table of all different words grows with the texts, and its memory does not come back to the system until the process
ends. This module imports no torch, so that such a process starts in a blink.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.split import place_of
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE
from foundation_core.data.tokens.kinds import make_tokenizer
from foundation_core.data.units.corpus import Corpus
from foundation_core.data.units.work import Unit
from foundation_core.specs import TokenizerSpec


@dataclass(frozen=True)
class TokenizerPiece:
    """A tokenizer to be made.

    Args:
        value_bytes: of each document, beside its text.
    """

    unit: Unit
    corpus: Corpus
    spec: TokenizerSpec
    value_bytes: int

    def __str__(self) -> str:
        """What is made."""
        return "the tokenizer"


def train_unit(piece: TokenizerPiece) -> None:
    """Commit the tokenizer's file.

    Raises:
        ConfigError: the texts cannot fill the vocabulary, or an existing tokenizer is not fit for use.
        DataError: an existing one is not there, or no tokenizer.
        SetupError: a library that training needs is not installed.
    """
    texts = training_texts(piece.corpus, piece.spec.training_bytes, piece.value_bytes)
    tokenizer = make_tokenizer(texts, piece.spec)
    piece.unit.commit({TOKENIZER_FILE: tokenizer.to_str(pretty=True).encode()})


def training_texts(corpus: Corpus, most_bytes: int, value_bytes: int) -> Iterator[str]:
    """Texts of training documents for a tokenizer: all, or of more than so many bytes a sample of about as many.

    A hash of its id alone says whether a document is in a sample of a given share.

    Args:
        value_bytes: of each document, beside its text.
    """
    sizes = (index.filter(pc.field("split") == "train")["bytes"] for index in corpus.indices())
    share = most_bytes / max(1, sum((pc.sum(some).as_py() or 0) - value_bytes * len(some) for some in sizes))
    for part in corpus.parts:
        documents = part.documents("train").select(["document", "text"])
        if share < 1:
            places = [place_of(document, "tokenizer") for document in documents["document"].to_pylist()]
            documents = documents.filter(pa.array([place < share for place in places], pa.bool_()))
        yield from documents["text"].to_pylist()
