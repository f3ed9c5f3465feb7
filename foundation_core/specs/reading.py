"""How the bytes of a file become a text: what is repaired, and how large it may become."""

from __future__ import annotations

from pydantic import Field

from foundation_core.specs.base import Spec


class ReadingSpec(Spec):
    """How the bytes of a file become one text, and where that ends in quarantine."""

    repair_encoding: bool = False
    """Texts that are not UTF-8 are read as the old encoding that they are in: UTF-16 and UTF-32 with a byte-order mark,
    Windows-1252, Latin-1, CESU-8, and what charset-normalizer is sure of. Off: they are quarantined."""
    most_document_bytes: int = Field(100_000_000, ge=1)
    """Bytes of a document once it is unpacked, and of the text that comes out of it; of an image or a recording, of its
    file or of what a table holds. A larger one is quarantined. The memory of a worker grows with it."""
    most_expansion: int = Field(100, ge=2)
    """Bytes that may come out of one byte that is packed, in tables, in archives and inside of DOCX and ODT; the first
    MiB is free. Prose packs to a third or a tenth; gzip can reach 1032, and a file that does is made to fill memory."""
