"""The bytes of one file, or of one member of an archive, as a document with a text.

notes.html.gz --unpacked--> notes.html --extract--> text, encoding = windows-1252
"""

from __future__ import annotations

from dataclasses import fields

from foundation_core.data.formats.extract import extract
from foundation_core.data.reading.unpacking import unpacked
from foundation_core.data.sources.documents import Entry, SourceFile
from foundation_core.specs.reading import ReadingSpec


def text_entry(document: SourceFile, name: str, data: bytes, reading: ReadingSpec) -> Entry:
    """A document, read.

    Args:
        name: of the file; its endings say what it is packed in and which format it has.
        data: what the file holds.

    Raises:
        ValueError: it has no text that can be had; the message is the reason.
        SetupError: a library that its format needs is not installed.
    """
    name, data = unpacked(name, data, reading.most_document_bytes)
    text, encoding = extract(name, data, reading)
    data = text.encode()
    known = {field.name: getattr(document, field.name) for field in fields(SourceFile)}
    return Entry(**{**known, "bytes": len(data), "encoding": encoding, "data": data})
