"""The spec of reading: how the bytes of a file become text, and how much of them."""

from __future__ import annotations

from pydantic import Field

from foundation_core.spec_base import Spec


class ReadingSpec(Spec):
    """How the bytes of a file become text."""

    repair_encoding: bool = True
    """Whether texts that are not UTF-8 are read in the old encoding that they are most likely in; they are counted."""
    most_document_bytes: int = Field(64_000_000, ge=1)
    """Bytes that a document may have, unpacked; a larger one is set aside unread."""
    most_expansion: int = Field(1000, ge=1)
    """Times that a packed file may be larger unpacked."""
