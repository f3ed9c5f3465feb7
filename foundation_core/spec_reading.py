"""The spec of reading: how much of a file is taken for one text."""

from __future__ import annotations

from pydantic import Field

from foundation_core.spec_base import Spec


class ReadingSpec(Spec):
    """How much of a file is taken for one text."""

    most_document_bytes: int = Field(64_000_000, ge=1)
    """Bytes that a row of a table may have; a larger one is set aside with the reason."""
