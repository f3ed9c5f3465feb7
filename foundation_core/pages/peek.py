"""A look into a data set: some of its documents, how they are cut and packed, where they are, what is lost nearby."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation_core.data.tokens.byte_level import TOKENIZER_FILE, load_tokenizer
from foundation_core.files import read_json
from foundation_core.pages.finding import Place, chosen, neighbours, places
from foundation_core.pages.packed import Window, windows
from foundation_core.pages.reading import DOCUMENTS, DROPPED, QUARANTINED, Corpus, texts_of
from foundation_core.pages.values import Values, values_shown
from foundation_core.pages.vocabulary import Spelling
from foundation_core.specs.loading import Packing

TOKENS_SHOWN, WINDOWS_SHOWN = 200, 2
_CHARACTERS = 1200
COLOURS = 5
"""Colours that pieces go through."""


@dataclass(frozen=True)
class Piece:
    """A token: its id and what it stands for."""

    id: int
    text: str


@dataclass(frozen=True)
class Document:
    """What is shown of a document.

    Args:
        state: kept, dropped or quarantined.
        facts: what its data set says of it, but for what it holds.
        tokens: how many it has; 0 without.
        pieces: its first tokens.
        text: how it begins, where it has no tokens to show it by; of a dropped one what is kept of it; or its caption.
        neighbours: dropped rows: its copies, then those with ids next to it.
    """

    id: str
    state: str
    facts: Mapping[str, Any]
    places: Sequence[Place]
    tokens: int
    pieces: Sequence[Piece]
    text: str | None
    values: Values | None
    neighbours: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Peek:
    """A look into a data set.

    Args:
        rows: packed rows from the beginning of the first document on; none of samples.
    """

    folder: Path
    counts: Mapping[str, tuple[int, int, int]]
    documents: Sequence[Document]
    rows: Sequence[Window]
    context_tokens: int
    packing: Packing
    spelling: Spelling | None

    def pieces(self, tokens: Sequence[int]) -> list[Piece]:
        """Tokens with what they stand for."""
        return [Piece(token, self.spelling(token) if self.spelling else str(token)) for token in tokens]


@dataclass(frozen=True)
class Wanted:
    """What somebody wants to see.

    Args:
        document: the id of one; None: some, drawn by the seed.
        count: of documents, if none is named.
        packing: how rows are made, as `pretrain.packing` says it.
    """

    document: str | None = None
    count: int = 3
    seed: int = 0
    context_tokens: int = 128
    packing: Packing = "cut"


def peek(corpus: Corpus, wanted: Wanted) -> Peek:
    """The look that somebody wants.

    Raises:
        DataError: there is no such document.
    """
    spelling = None
    if (corpus.folder / TOKENIZER_FILE).exists():
        spelling = Spelling(load_tokenizer(corpus.folder / TOKENIZER_FILE))
    ids = [wanted.document] if wanted.document else chosen(corpus, wanted.count, wanted.seed)
    documents = [_document(corpus, each, spelling) for each in ids]
    rows = _rows(corpus, documents[0].places, wanted) if documents else []
    counts = {name: (of.rows, of.tokens, of.shards) for name, of in corpus.datasets().items()}
    return Peek(corpus.folder, counts, documents, rows, wanted.context_tokens, wanted.packing, spelling)


def _document(corpus: Corpus, document: str, spelling: Spelling | None) -> Document:
    found = places(corpus, document)
    first, last = found[0], found[-1]
    state = first.dataset if first.dataset in (DROPPED, QUARANTINED) else "kept"
    tokens = last.values.get("tokens") or []
    text = first.values.get("text") if state == DROPPED else last.values.get("caption")
    if text is None and first.dataset in (DOCUMENTS, DROPPED):
        text = texts_of(corpus, [document], _CHARACTERS).get(document)
    values = None
    if last.values.get("values") is not None:
        from foundation_core.data.values.features import FEATURES_FILE  # it needs torch, and texts do without

        features = read_json(corpus.folder / FEATURES_FILE)
        values = values_shown(last.values["values"], features["shape"], features["modality"])
    held = ("document", "text", "tokens", "values", "caption", "sha256")
    return Document(
        id=document,
        state=state,
        facts={name: value for name, value in first.values.items() if name not in held},
        places=found,
        tokens=len(tokens),
        pieces=[Piece(token, spelling(token)) for token in tokens[:TOKENS_SHOWN]] if spelling else [],
        text=text,
        values=values,
        neighbours=neighbours(corpus, document),
    )


def _rows(corpus: Corpus, found: Sequence[Place], wanted: Wanted) -> list[Window]:
    """Packed rows from a document on; none of values, which are not packed, and of documents that were lost."""
    place = found[-1]
    if corpus.name != "tokens" or not place.dataset.startswith(f"{corpus.name}/"):
        return []
    dataset = corpus.rows[place.dataset.rpartition("/")[2]]
    return windows(dataset, place, wanted.context_tokens, WINDOWS_SHOWN, wanted.packing)
