"""Real PDF, DOCX and ODT documents, written by small writers: no file of them lies in the repository."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
TEXT = "urn:oasis:names:tc:opendocument:xmlns:text:1.0"
OFFICE = "urn:oasis:names:tc:opendocument:xmlns:office:1.0"
ODT_TYPE = "application/vnd.oasis.opendocument.text"


def pdf(pages: Sequence[str], trailer: str = "", stream: bytes | None = None) -> bytes:
    """A PDF with a line of text on each page.

    Args:
        trailer: more entries of its trailer.
        stream: the packed content of every page, in place of its text.
    """
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, text in enumerate(pages):
        shown = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)").encode("cp1252")
        content = (
            zlib.compress(b"BT /F1 12 Tf 72 720 Td (" + shown + b") Tj ET" if text else b"")
            if stream is None
            else stream
        )
        resources = "/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 612 792]"
        page = f"<< /Type /Page /Parent 2 0 R {resources} /Contents {5 + 2 * number} 0 R >>"
        head = f"<< /Length {len(content)} /Filter /FlateDecode >>\nstream\n".encode()
        objects += [page.encode(), head + content + b"\nendstream"]
    body, places = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(objects) + 1
    ending = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R {trailer} >>\n"
    return body + ending.encode() + f"startxref\n{len(body)}\n%%EOF\n".encode()


def zipped(members: Mapping[str, bytes | str], stored: Sequence[str] = ()) -> bytes:
    """A zip archive.

    Args:
        stored: members that are not compressed.
    """
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content, zipfile.ZIP_STORED if name in stored else zipfile.ZIP_DEFLATED)
    return sink.getvalue()


def docx_of(body: str, head: str = "") -> bytes:
    """A DOCX document whose body is WordprocessingML."""
    document = (
        f'<?xml version="1.0"?>{head}<w:document xmlns:w="{WORD}" xmlns:mc="mc"><w:body>{body}</w:body></w:document>'
    )
    types = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'
    return zipped({"[Content_Types].xml": types, "word/document.xml": document})


def docx(paragraphs: Sequence[str]) -> bytes:
    """A DOCX document of paragraphs."""
    return docx_of("".join(f"<w:p><w:r><w:t>{escape(text)}</w:t></w:r></w:p>" for text in paragraphs))


def odt_of(body: str, head: str = "", manifest: str = "<manifest/>") -> bytes:
    """An ODT document whose body is OpenDocument XML."""
    content = (
        f'<?xml version="1.0"?>{head}<office:document-content xmlns:office="{OFFICE}" xmlns:text="{TEXT}">'
        f"<office:body><office:text>{body}</office:text></office:body></office:document-content>"
    )
    members = {"mimetype": ODT_TYPE, "content.xml": content, "META-INF/manifest.xml": manifest}
    return zipped(members, stored=["mimetype"])


def odt(paragraphs: Sequence[str]) -> bytes:
    """An ODT document of paragraphs."""
    return odt_of("".join(f"<text:p>{escape(text)}</text:p>" for text in paragraphs))
