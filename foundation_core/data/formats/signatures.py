"""What a file looks like by its bytes, whatever its name says."""

from __future__ import annotations

import io
import re
import zipfile

UNKNOWN = "no known format"
"""What a text looks like, and what nobody knows."""
_STARTS = {
    b"%PDF-": "a PDF",
    b"{\\rtf": "an RTF document",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old or encrypted Office document",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF87a": "a GIF image",
    b"GIF89a": "a GIF image",
    b"\x7fELF": "a program",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh9": "bzip2",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"SQLite format 3\0": "an SQLite database",
}
_MEMBERS = {
    "word/document.xml": "a DOCX document",
    "xl/workbook.xml": "an XLSX sheet",
    "ppt/presentation.xml": "a PPTX presentation",
}
_ODF = {
    b"application/vnd.oasis.opendocument.text": "an ODT document",
    b"application/vnd.oasis.opendocument.spreadsheet": "an ODS sheet",
    b"application/vnd.oasis.opendocument.presentation": "an ODP presentation",
    b"application/epub+zip": "an EPUB book",
}
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.I | re.S
)
_PDF_HEADER_BYTES = 1024
_HTML_BYTES = 4096


def looks_like(data: bytes) -> str:
    """What bytes begin like, in words; "" for nothing that is known, as of a text."""
    for start, name in _STARTS.items():
        if data.startswith(start):
            return name
    if data.startswith(b"PK\x03\x04"):
        return _zip_kind(data)
    return "HTML" if _HTML.match(data[:_HTML_BYTES]) else ""


def holds_pdf(data: bytes) -> bool:
    """Whether the header of a PDF stands where readers look for it: it may have something in front."""
    return b"%PDF-" in data[:_PDF_HEADER_BYTES]


def _zip_kind(data: bytes) -> str:
    """What a zip archive is the packing of; an ODF file states it in its first member, uncompressed."""
    name_bytes = int.from_bytes(data[26:28], "little")
    stated = data[30 + name_bytes + int.from_bytes(data[28:30], "little") :][:128]
    if data[30 : 30 + name_bytes] == b"mimetype":
        for kind in sorted(_ODF, key=len, reverse=True):
            if stated.startswith(kind):
                return _ODF[kind]
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
    except Exception:  # cut or broken: its directory is at its end
        names = {member for member in _MEMBERS if member.encode() in data}
    return next((kind for member, kind in _MEMBERS.items() if member in names), "a zip archive")
