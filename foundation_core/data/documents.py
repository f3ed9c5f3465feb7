"""Raw files become documents: found, read, normalised, or set aside with the reason.

    folder --Source.files--> SourceFile --read_files--> documents | quarantined

A document's id is the source's name and the path below its root, so that it is the same wherever the files lie.
"""

from __future__ import annotations

import builtins
import hashlib
import os
import platform
import sysconfig
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Protocol, cast

import pyarrow as pa

from foundation_core.errors import ConfigError, DataError
from foundation_core.plugins import find
from foundation_core.specs import SourceSpec

DOCUMENTS = pa.schema(
    {
        "document": pa.string(),
        "group": pa.string(),
        "bytes": pa.int64(),
        "sha256": pa.string(),
        "text": pa.large_string(),
    }
)
"""A readable document: its id, the group it belongs to, and its normalised text with size and digest in UTF-8."""

QUARANTINED = pa.schema({"document": pa.string(), "reason": pa.string()})
"""A file that is no document, and why."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a source, or a part of one that a source reads in a way of its own.

    Args:
        document: its id, "<source>/<relative path>".
        bytes: its size on disk.
        group: the first folder below the root, or "" for a file that lies in the root.
    """

    document: str
    path: Path
    bytes: int
    group: str

    def read(self) -> builtins.bytes:
        """The bytes of its text.

        Raises:
            OSError: it cannot be read.
            ValueError: it holds no text.
        """
        return self.path.read_bytes()

    def digest(self) -> str:
        """Hex sha256 of all that decides the document beside its id; or why it cannot be read."""
        try:
            return hashlib.sha256(self.read()).hexdigest()
        except OSError as error:  # the read quarantines it for the same reason, so the reason is its content
            return f"unreadable: {error.strerror}"


class Source(Protocol):
    """Where documents come from. What it says of itself goes into the data card."""

    description: str
    language: str
    licence: str

    def files(self) -> list[SourceFile]:
        """Every file that is a document, sorted by document id."""


FOREIGN = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
"""Folders of the standard library that are not its own source: tests, and packages installed into it."""
BUILT = ("_sysconfigdata", "config-")
"""How names begin that are written for one machine when Python is built, and hold that machine's paths."""


class PythonStandardLibrary:
    """The standard library of the running Python, without its tests: a real corpus that every machine has."""

    language = "Python source"

    def __init__(self, spec: SourceSpec) -> None:
        self.root = Path(sysconfig.get_paths()["stdlib"])
        self.pattern = spec.pattern
        self.description = f"the standard library of {platform.python_implementation()} {platform.python_version()}"
        stated = "as its LICENSE.txt states" if (self.root / "LICENSE.txt").exists() else "as python.org states"
        self.licence = f"Python Software Foundation License Version 2, {stated}"

    def files(self) -> list[SourceFile]:
        """Every module of the library itself."""
        wanted = PurePath(self.pattern).parts
        return _listed("python_stdlib", self.root, (path for path in self._own() if _fits(path.parts, wanted)))

    def _own(self) -> Iterator[PurePath]:
        """The library's own files. Foreign folders are not entered: one of them may hold 20 times as many files."""
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if name not in FOREIGN and not name.startswith(BUILT)]
            below = Path(folder).relative_to(self.root)
            files = (
                name for name in names if not name.startswith(BUILT) and os.path.isfile(os.path.join(folder, name))
            )
            yield from (below / name for name in files)


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a glob pattern, both in parts; ** stands for any number of folders."""
    if not parts or not pattern:
        return not parts and not pattern
    if pattern[0] == "**":
        return any(_fits(parts[skipped:], pattern[1:]) for skipped in range(len(parts)))
    return fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


class Folder:
    """The files of a folder that match a pattern."""

    licence = "not stated by the source"

    def __init__(self, spec: SourceSpec) -> None:
        if spec.path is None:
            raise ConfigError("source.kind=folder needs source.path", fix="name the folder that holds the documents")
        self.root, self.pattern = Path(spec.path).expanduser(), spec.pattern
        self.description = f"the files of a folder that match {spec.pattern}"
        self.language = "Python source" if spec.pattern.endswith(".py") else "text"
        if not self.root.is_dir():
            raise DataError(
                f"the source folder {self.root} {'is not a folder' if self.root.exists() else 'is not there'}",
                fix="correct source.path, or create the folder and put the documents into it",
            )

    def files(self) -> list[SourceFile]:
        """Every file that matches."""
        return _listed("folder", self.root, _matches(self.root, self.pattern))


def open_source(spec: SourceSpec) -> Source:
    """The source that a spec names.

    Raises:
        ConfigError: no source of that kind, or a pattern that is none.
        DataError: there is nothing at its path.
    """
    if not spec.pattern or PurePath(spec.pattern).is_absolute() or ".." in PurePath(spec.pattern).parts:
        raise ConfigError(
            f"source.pattern={spec.pattern!r} does not stay below the source's folder", allowed="such as **/*.py"
        )
    return cast(Source, find("sources", spec.kind)(spec))


def source_content(files: Iterable[SourceFile]) -> str:
    """Hex digest of what a source holds: every document's id with the sha256 of its bytes, and no location.

    Raises:
        DataError: there is no document at all, or one id stands for two files.
    """
    content, known = hashlib.sha256(), set[str]()
    for file in files:
        if file.document in known:
            raise DataError(f"the source lists {file.document} twice", fix="give each file an id of its own")
        known.add(file.document)
        content.update(f"{file.document}\0{file.digest()}\n".encode())
    if not known:
        raise DataError(
            "the source is empty: no file matches", fix="check source.path and source.pattern, or choose another source"
        )
    return content.hexdigest()


def read_files(files: Sequence[SourceFile]) -> tuple[pa.Table, pa.Table]:
    """The files as (documents, quarantined): each is in exactly one of them."""
    documents: list[dict[str, object]] = []
    quarantined: list[dict[str, object]] = []
    for file in files:
        try:
            text = normalise(file.read())
        except (OSError, ValueError) as error:
            reason = f"unreadable: {error.strerror}" if isinstance(error, OSError) else str(error)
            quarantined.append({"document": file.document, "reason": reason})
            continue
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        row = {"document": file.document, "group": file.group, "bytes": len(data), "sha256": digest, "text": text}
        documents.append(row)
    return pa.Table.from_pylist(documents, DOCUMENTS), pa.Table.from_pylist(quarantined, QUARANTINED)


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


def _matches(root: Path, pattern: str) -> Iterator[PurePath]:
    for path in root.glob(pattern):
        if path.is_file():
            yield path.relative_to(root)


def _listed(source: str, root: Path, paths: Iterable[PurePath]) -> list[SourceFile]:
    files = [
        SourceFile(
            document=f"{source}/{_name(path)}",
            path=root / path,
            bytes=(root / path).stat().st_size,
            group=_name(PurePath(path.parts[0])) if len(path.parts) > 1 else "",
        )
        for path in paths
    ]
    return sorted(files, key=lambda file: file.document)


def _name(path: PurePath) -> str:
    """A path as text that UTF-8 can hold, whatever bytes the file system allowed in it."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
