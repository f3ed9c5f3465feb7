"""Images and recordings as people have them: folders of classes, and tables that name them or hold them.

flowers/rose/12.jpg            --> document "image_folder/rose/12.jpg", group "rose"
flowers.csv, row 12            --> document "image_table/flowers.csv/000000012", group = its label, and its caption
"""

from __future__ import annotations

import builtins
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from foundation_core.data.sources.documents import (
    NOT_STATED,
    SourceFile,
    files_below,
    reason_of,
    refused,
    source_folder,
)
from foundation_core.data.sources.rows import RepairedRow, TableItem, TableSource
from foundation_core.data.stores.places import Place
from foundation_core.data.tables.batches import Row, field_of
from foundation_core.specs import SourceSpec
from foundation_core.specs.reading import ReadingSpec

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
RECORDINGS = frozenset({".wav", ".flac", ".ogg", ".mp3"})
"""How the names of files end that are read where a spec states no pattern."""


class _MediaFolder:
    """The files of a folder; the first folder, or what `label_pattern` finds in the path, is the label."""

    name: str
    suffixes: frozenset[str]
    captioned = False
    language = "none"

    def __init__(self, spec: SourceSpec) -> None:
        self.licence = spec.licence or NOT_STATED
        self.root, self._pattern, self._label = source_folder(spec), spec.pattern, spec.label_pattern
        self._reading = spec.reading
        self.description = f"the {self.name.split('_')[0]} files of a folder" + (
            f" that match {spec.pattern}" if spec.pattern else ""
        )

    def files(self) -> list[SourceFile]:
        """Every file that matches, or whose name says that it is one of these."""
        found = files_below(self.name, self.root, self._pattern or "**/*")
        wanted = [file for file in found if self._pattern or file.path.suffix.lower() in self.suffixes]
        return [_bounded(self._labelled(file) if self._label else file, self._reading) for file in wanted]

    def _labelled(self, file: SourceFile) -> SourceFile:
        below = file.document.partition("/")[2]
        label = re.search(self._label or "", below)
        if label is None:
            return refused(file, f"source.label_pattern finds no label in its path {below}")
        return replace(file, group=label[1])


def _bounded(file: SourceFile, reading: ReadingSpec) -> SourceFile:
    """The file; or, before it is read, a refused one if it is larger than the spec allows."""
    if file.bytes <= reading.most_document_bytes:
        return file
    bound = f"the {reading.most_document_bytes:,} of source.reading.most_document_bytes"
    return refused(file, f"{file.bytes:,} bytes, more than {bound}")


class ImageFolder(_MediaFolder):
    """The images of a folder."""

    modality, name, suffixes = "image", "image_folder", IMAGES


class AudioFolder(_MediaFolder):
    """The recordings of a folder."""

    modality, name, suffixes = "audio", "audio_folder", RECORDINGS


@dataclass(frozen=True)
class MediaRow(TableItem):
    """The image or recording of a row of a table.

    Args:
        field: the column that holds it.
        caption_field: the column that holds its caption, or None.
    """

    field: str
    caption_field: str | None

    def read(self) -> builtins.bytes:
        """Its bytes, from the table or from the file that the table names."""
        return _content(self._value(self.field), self.path.parent)

    def caption(self) -> str:
        """Its caption."""
        text = self._value(self.caption_field or "")
        if text is not None and not isinstance(text, str):
            raise ValueError(f"its caption is no text but {type(text).__name__}")
        if text is None or not text.strip():
            raise ValueError("no caption")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"its caption is not text: a lone surrogate at character {error.start}") from error
        return text

    def _value(self, name: str) -> Any:
        return field_of(self.values([self.field, *filter(None, [self.caption_field])]), name)

    def digest(self) -> str:
        """Of its bytes, label, licence and caption, and the old encoding of that; of what is missing, that it is."""
        parts = [self.group.encode(), self.licence.encode(), *filter(None, [self.encoding.encode()])]
        for read in (self.read, self.caption) if self.caption_field else (self.read,):
            try:
                part = read()
            except (OSError, ValueError) as error:
                part = reason_of(error)
            parts.append(part if isinstance(part, bytes) else part.encode())
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _content(value: Any, folder: Place) -> bytes:
    """What a field holds: bytes, a path beside the table, or both as data sets of the Hugging Face hub have them."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("neither bytes nor a path" if value is not None else "no bytes and no path")
    return (folder / value).read_bytes()


def _size(value: Any, folder: Place) -> int:
    """Bytes of what a field holds, without reading a file that it names."""
    held = value.get("bytes") or value.get("path") if isinstance(value, Mapping) else value
    if isinstance(held, str):
        return (folder / held).stat().st_size
    return len(held) if isinstance(held, bytes) else 0


class _MediaTable(TableSource):
    """The images or recordings that tables hold or name."""

    language = "as its captions"
    modality: str

    def __init__(self, spec: SourceSpec, field: str) -> None:
        super().__init__(spec)
        self.field, self.captioned = field, spec.caption_field is not None
        self.licence = spec.licence or NOT_STATED
        self.fields = [field, *filter(None, (spec.caption_field, spec.label_field, spec.id_field, spec.licence_field))]
        self.description = f"{self.modality}s that tables hold or name" + (", with captions" if self.captioned else "")

    def item(self, path: Place, document: str, number: int, row: Row) -> SourceFile:
        """The image or recording of a row."""
        try:
            size = _size(field_of(row, self.field), path.parent)
        except (OSError, ValueError):  # the read quarantines it for the same reason
            size = 0
        fields = (number, self.field, self.spec.caption_field)
        encodings = row.encodings if isinstance(row, RepairedRow) else {}
        caption = self.spec.caption_field or ""
        encoding = encodings.get(caption) or encodings.get(caption.split(".")[0], "")
        held = MediaRow(
            document, path, size, self.label(row), *fields,
            reading=self.spec.reading, licence=self.licence_of(row), encoding=encoding,
        )  # fmt: skip
        return _bounded(held, self.spec.reading)


class ImageTable(_MediaTable):
    """The images that tables hold or name."""

    modality, name = "image", "image_table"

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec, spec.image_field)


class AudioTable(_MediaTable):
    """The recordings that tables hold or name."""

    modality, name = "audio", "audio_table"

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec, spec.audio_field)
