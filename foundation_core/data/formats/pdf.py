"""PDF as the text that its pages show, read by pypdf: in Python alone, with a bound on whatever it unpacks."""

from __future__ import annotations

import io
import logging

from foundation_core.data.formats.base import Extracted, Refused, check_size, reasons, shown
from foundation_core.data.formats.signatures import UNKNOWN, holds_pdf, looks_like
from foundation_core.data.reading.unpacking import FREE_BYTES
from foundation_core.plugins import need
from foundation_core.specs.reading import ReadingSpec

_END_BYTES = 1024
"""Where the end mark of a PDF stands: readers look for it so far from the end."""


class PDF:
    """Documents with text in them; of scans there is none."""

    libraries = ("pypdf",)
    accepts = frozenset({"", "a PDF"})

    def __init__(self) -> None:
        need("documents", "pypdf")
        logging.getLogger("pypdf").setLevel(logging.CRITICAL + 1)  # it tells of each thing that it mends

    def extract(self, data: bytes, limits: ReadingSpec) -> Extracted:
        """The text of all pages, one below the other."""
        from pypdf import PdfReader, apply_configuration, get_configuration

        if not holds_pdf(data):
            raise Refused(f"looks like {looks_like(data) or UNKNOWN}, and its name is .pdf")
        if b"%%EOF" not in data[-_END_BYTES:]:
            raise Refused("a truncated PDF: its end mark is not there")
        most_bytes = max(FREE_BYTES, min(limits.most_document_bytes, len(data) * limits.most_expansion))
        bounded = get_configuration().with_overwrites(
            zlib_maximum_output_length=most_bytes,
            lzw_maximum_output_length=most_bytes,
            run_length_maximum_output_length=most_bytes,
            brotli_maximum_output_length=most_bytes,
            array_based_stream_maximum_output_length=most_bytes,
            jbig2dec_binary=None,  # images are not read, and no program is started
        )
        with reasons("a PDF"), apply_configuration(bounded):
            try:
                document = PdfReader(io.BytesIO(data))
            except Exception as error:  # the reader's own, which `reasons` tells
                if b"/Encrypt" in data:  # what is raised then depends on what else is installed
                    raise Refused("an encrypted PDF") from error
                raise
            if document.is_encrypted:
                raise Refused("an encrypted PDF")
            pages: list[str] = []
            size = 0
            for page in document.pages:
                pages.append(page.extract_text())
                size += len(pages[-1])
                check_size(size, limits, "a text")
        text = shown("\n".join(pages))
        if not text.strip():
            raise Refused(f"a PDF without text: {len(pages)} pages of images or of nothing")
        return Extracted(text, "")
