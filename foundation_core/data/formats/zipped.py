"""Documents that are XML in a zip archive: one member read at a time, in memory, within bounds.

No member is written anywhere. A document type declaration is refused, so there are no entities to expand or to fetch.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import NoReturn, Protocol
from xml.parsers import expat

from foundation_core.data.formats.base import Refused, check_size
from foundation_core.data.reading.unpacking import FREE_BYTES
from foundation_core.specs.reading import ReadingSpec

MOST_DEPTH = 1000
"""Elements within each other; no writer of documents comes near."""
_CHUNK_BYTES = 1 << 16


class Handler(Protocol):
    """Hears what stands in an XML document. Names are (namespace, local name)."""

    def start(self, name: tuple[str, str], attributes: dict[str, str]) -> None:
        """An element begins; its attributes by "namespace local name"."""

    def end(self, name: tuple[str, str]) -> None:
        """An element ends."""

    def characters(self, text: str) -> None:
        """Some text, not always all that stands together."""


def open_zip(data: bytes, what: str) -> zipfile.ZipFile:
    """The archive that a document is.

    Raises:
        ValueError: it is none.
    """
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        raise Refused(f"{what} that is truncated or broken: it ends without the list of what it holds") from error


def member(archive: zipfile.ZipFile, name: str, limits: ReadingSpec) -> Iterator[bytes]:
    """What a member of a document holds, in pieces.

    Raises:
        ValueError: as `unzipped`.
    """
    return unzipped(archive, archive.getinfo(name), limits, f"its {name}")


def unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: ReadingSpec, what: str) -> Iterator[bytes]:
    """What a member holds, in pieces.

    Args:
        what: the member in words, for the reason.

    Raises:
        ValueError: it is encrypted, packed by what zipfile does not bound, or unpacks to too much.
    """
    if info.flag_bits & 1:
        raise Refused(f"encrypted: {what}")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile bounds no other
        raise Refused(f"{what} is packed by method {info.compress_type}; allowed: stored, deflated")
    most_bytes = max(FREE_BYTES, limits.most_expansion * info.compress_size)
    size = 0
    with archive.open(info) as file:
        while piece := file.read(_CHUNK_BYTES):
            size += len(piece)
            check_size(size, limits, f"{what} unpacks to something")
            if size > most_bytes:
                raise Refused(f"{what} unpacks to more than {limits.most_expansion} times its size")
            yield piece


def read_xml(pieces: Iterator[bytes], handler: Handler) -> None:
    """Tell a handler what stands in a document.

    Raises:
        ValueError: it has a document type, or is nested too deeply.
        expat.ExpatError: it is no XML.
    """
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MOST_DEPTH:
            raise Refused(f"XML with more than {MOST_DEPTH} elements within each other")
        handler.start(_named(name), attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        handler.end(_named(name))

    def refuse_type(*_: object) -> NoReturn:
        raise Refused("XML with a document type, which documents do not have")

    parser.StartDoctypeDeclHandler = refuse_type
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = handler.characters
    for piece in pieces:
        parser.Parse(piece, False)
    parser.Parse(b"", True)


def _named(name: str) -> tuple[str, str]:
    namespace, _, local = name.rpartition(" ")
    return namespace, local


class Paragraphs:
    """The paragraphs of a document, while its elements go by; one within another comes before it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._open: list[list[str]] = []

    def begin(self) -> None:
        """A paragraph begins."""
        self._open.append([])

    def finish(self) -> None:
        """The innermost paragraph ends."""
        if self._open:
            self.done.append("".join(self._open.pop()))

    def add(self, text: str) -> None:
        """Some text of the innermost paragraph; outside of all there is none."""
        if self._open:
            self._open[-1].append(text)

    def ends_in_space(self) -> bool:
        """Whether white space stands last, or nothing."""
        last = self._open[-1][-1:] if self._open else []
        return not last or last[0][-1:].isspace()
