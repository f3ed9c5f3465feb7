"""Ids that rows of tables bring along: the first row that has one is that document, others that have it are refused.

reviews.jsonl, row 12: {"id": "r-7", ...}   --> "table/r-7", at the place "table/reviews.jsonl/000000012"
reviews.jsonl, row 90: {"id": "r-7", ...}   --> "table/reviews.jsonl/000000090", refused; the reason names both
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from foundation_core.data.sources.documents import SourceFile, refused

PLACES_FILE = "places.arrow"
PLACES = pa.schema({"document": pa.string(), "place": pa.string()})
"""A document that brings its id along, and where it is."""
_MOST_CHARACTERS = 1000


def id_of(value: Any) -> str:
    """The id that a field holds.

    Raises:
        ValueError: it holds none; the message is the reason.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise ValueError("its id is not UTF-8") from error
    if value is None or value == "":
        raise ValueError("no id")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"its id is {type(value).__name__}, not a text or a whole number")
    name = str(value)
    if len(name) > _MOST_CHARACTERS:
        raise ValueError(f"its id has more than {_MOST_CHARACTERS:,} characters")
    if not name.isprintable():  # a line's end would break every list of ids; UTF-8 has no lone surrogates
        raise ValueError("its id holds a character that cannot be printed")
    return name


def said_of_same_id(document: str, first: str) -> str:
    """Why a document is refused whose id another one has.

    Args:
        first: the place of the other one.
    """
    return f"its id is that of {first}: {document}"


class FirstOfEach:
    """Documents, of which those are refused whose id one before them brought along too.

    Args:
        places: of the documents that were met and that bring ids along, by id, in their order.
    """

    def __init__(self, documents: Iterable[SourceFile]) -> None:
        self._documents, self.places = documents, dict[str, str]()

    def __iter__(self) -> Iterator[SourceFile]:
        for file in self._documents:
            if file.place and (first := self.places.setdefault(file.document, file.place)) != file.place:
                yield refused(replace(_bare(file), document=file.place), said_of_same_id(file.document, first))
            else:
                yield file

    def table(self) -> pa.Table:
        """The places, as rows of `PLACES`."""
        return pa.table([list(self.places), list(self.places.values())], schema=PLACES)


def _bare(file: SourceFile) -> SourceFile:
    return SourceFile(file.document, file.path, file.bytes, file.group, source=file.source, licence=file.licence)
