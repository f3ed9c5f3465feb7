"""Sources: where raw items are found, and what each of them is called.

    folder --Source.files--> SourceFile --modalities.read_files--> documents | quarantined

A document's id is the source's name and the path below its root, so that it is the same wherever the files lie.
"""

from __future__ import annotations

import builtins
import hashlib
import os
import platform
import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Protocol, cast

from foundation_core.data.split import SPLITS, Split
from foundation_core.data.stores.places import Place, below, located
from foundation_core.errors import ConfigError, DataError
from foundation_core.plugins import find
from foundation_core.specs import SourceSpec

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """One file of a source, or a part of one that a source reads in a way of its own.

    Args:
        document: its id, "<source>/<relative path>".
        bytes: its size on disk.
        group: the first folder below the root, or "" for a file that lies in the root.
        splits: those that its source allows for it; the hash of the id chooses among them.
        source: the name of its source, where there are several.
        licence: of this document, where it has one of its own.
        encoding: that its text was read in, where it is known.
        place: where it is, where its id is one that it brings along; another document may bring the same.
    """

    document: str
    path: Place
    bytes: int
    group: str
    splits: tuple[Split, ...] = field(default=SPLITS, kw_only=True)
    source: str = field(default="", kw_only=True)
    licence: str = field(default="", kw_only=True)
    encoding: str = field(default="", kw_only=True)
    place: str = field(default="", kw_only=True)

    def parts(self, unit_bytes: int, copies: Path | None = None) -> Iterator[SourceFile]:
        """What workers read apart: itself, unless it is larger than a unit and can be cut.

        Args:
            unit_bytes: that a part has, or a little more.
            copies: a folder where packed files may be unpacked to, once for all of their parts. It must be there as
                long as the parts are read. None: each part unpacks what lies before it.
        """
        yield self

    def entries(self) -> Iterator[SourceFile]:
        """The documents that it holds: itself, unless it is a file of many."""
        yield self

    def most_documents(self) -> int | None:
        """How many documents it may hold at the most, by what is known of it unread; None: nobody knows."""
        return 1 if type(self).entries is SourceFile.entries else None

    def may_hold(self, pattern: str) -> bool:
        """Whether documents of other names that it holds may fit the pattern: no, unless it is a file of many."""
        return False

    def read(self) -> builtins.bytes:
        """The bytes of the item, as its modality reads them: of a text, an image, a recording.

        Raises:
            OSError: it cannot be read.
            ValueError: it holds nothing.
        """
        return self.path.read_bytes()

    def caption(self) -> str:
        """The text that belongs to it, in a source whose items have one.

        Raises:
            ValueError: it has none.
        """
        raise ValueError(f"{type(self).__name__} has no captions")

    def decided_by(self) -> str | None:
        """What decides its digest beside the bytes of its file; None: how it is read does, or other files do."""
        return "" if type(self).read is SourceFile.read else None

    def digest(self) -> str:
        """Hex sha256 of all that decides the document beside its id; or why it cannot be read."""
        if (said := self.decided_by()) is not None:
            return content_digest(self.path, said)
        try:
            return hashlib.sha256(self.read()).hexdigest()
        except OSError as error:  # the read quarantines it for the same reason, so the reason is its content
            return reason_of(error)


def before_wildcards(pattern: str) -> str:
    """How every id begins that fits a pattern of `source.withdrawn`; the pattern itself, if it has no wildcards."""
    return re.split(r"[*?[]", pattern, maxsplit=1)[0]


def content_digest(path: Place, said: str = "") -> str:
    """Hex sha256 of a file's bytes, a chunk in memory, behind what else decides; or why it cannot be read."""
    digest = hashlib.sha256(said.encode())
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:  # the read quarantines it for the same reason, so the reason is its content
        return reason_of(error)
    return digest.hexdigest()


def reason_of(error: OSError | ValueError) -> str:
    """Why an item cannot be read, in words that name no place on this machine."""
    return f"unreadable: {error.strerror}" if isinstance(error, OSError) else str(error)


@dataclass(frozen=True)
class Entry(SourceFile):
    """A document that was read when its file was.

    Args:
        data: its text in UTF-8.
    """

    data: builtins.bytes

    def read(self) -> builtins.bytes:
        """What it holds."""
        return self.data


@dataclass(frozen=True)
class Refused(SourceFile):
    """A file that its source cannot make sense of.

    Args:
        reason: why; it is quarantined with it.
    """

    reason: str

    def read(self) -> builtins.bytes:
        """Nothing: raises."""
        raise ValueError(self.reason)

    def digest(self) -> str:
        """The reason."""
        return self.reason


def refused(file: SourceFile, reason: str) -> Refused:
    """A file as one that is quarantined with a reason."""
    return Refused(
        file.document, file.path, file.bytes, file.group, source=file.source, licence=file.licence, place=file.place,
        reason=reason,
    )  # fmt: skip


def entries_of(file: SourceFile, part_bytes: int) -> Iterator[SourceFile]:
    """The documents of a file of many, part by part; what is packed is unpacked once, into a folder for a while."""
    with TemporaryDirectory() as copies:
        for part in list(file.parts(part_bytes, Path(copies))):
            yield from part.entries()


class Source(Protocol):
    """Where documents come from. What it says of itself goes into the data card.

    Args:
        modality: the registered modality of its items: text, image, audio, series.
        captioned: whether each item has a caption.
    """

    modality: str
    captioned: bool
    description: str
    language: str
    licence: str

    def files(self) -> list[SourceFile]:
        """Every file that is a document, sorted by document id; those that bring ids along, as they are found."""


PYTHON_FILES = "**/*.py"
"""What the standard library's source reads where a spec states no pattern."""
NOT_STATED = "not stated by the source"
_MANUAL_OF_A_LANGUAGE = re.compile(r"/usr/share/man/([a-z]{2}(?:_[A-Z]{2})?)")

FOREIGN = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
"""Folders of the standard library that are not its own source: tests, and packages installed into it."""
BUILT = ("_sysconfigdata", "config-")
"""How names begin that are written for one machine when Python is built, and hold that machine's paths."""


class PythonStandardLibrary:
    """The standard library of the running Python, without its tests: a real corpus that every machine has."""

    modality, captioned = "text", False
    language = "Python source"

    def __init__(self, spec: SourceSpec) -> None:
        self.root = Path(sysconfig.get_paths()["stdlib"])
        self.pattern = spec.pattern or PYTHON_FILES
        self.description = f"the standard library of {platform.python_implementation()} {platform.python_version()}"
        stated = "as its LICENSE.txt states" if (self.root / "LICENSE.txt").exists() else "as python.org states"
        self.licence = f"Python Software Foundation License Version 2, {stated}"

    def files(self) -> list[SourceFile]:
        """Every module of the library itself."""
        wanted = [PurePath(one).parts for one in patterns_of(self.pattern)]
        own = (path for path in self._own() if any(_fits(path.parts, one) for one in wanted))
        return _listed("python_stdlib", ((path, self.root / path) for path in own))

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


def source_folder(spec: SourceSpec, *, or_file: bool = False) -> Place:
    """The folder that a spec names.

    Args:
        or_file: whether it may be one file, too.

    Raises:
        ConfigError: it names none.
        DataError: the folder is not there.
    """
    if spec.path is None:
        raise ConfigError(f"source.kind={spec.kind} needs source.path", fix="name the folder that holds the documents")
    root = located(spec.path)
    if not root.is_dir() and not (or_file and root.name and root.is_file()):
        raise DataError(
            f"the source folder {root} {'is not a folder' if root.exists() else 'is not there'}",
            fix=f"{_how_to_get(str(root))}correct source.path (--ingest.source.path FOLDER), or create the folder and"
            " put the documents into it",
        )
    return root


def _how_to_get(root: str) -> str:
    """What brings the manual of a language, of which Debian makes a package each; "" for any other folder."""
    found = _MANUAL_OF_A_LANGUAGE.fullmatch(root)
    return "" if found is None else f"apt-get install manpages-{found[1].lower().replace('_', '-')}, or "


def files_below(source: str, root: Place, pattern: str) -> list[SourceFile]:
    """The files of a folder that match a pattern, or one of several, sorted by document id.

    What cannot be looked into, a link that leads to nothing or a folder that is closed to us, is a file that cannot be
    read: nobody knows what is lost there.
    """
    patterns = patterns_of(pattern)
    found = [path for path in dict.fromkeys(path for one in patterns for path in root.glob(one)) if is_listed(path)]
    if isinstance(root, Path):
        found += dict.fromkeys(path for one in patterns for path in _closed_folders(root, PurePath(one).parts))
    return _listed(source, ((below(root, path), path) for path in found))


def one_file(source: str, path: Place, pattern: str) -> list[SourceFile]:
    """A file as the only one of its source, as if it lay in a folder alone; none, if it does not match."""
    name = PurePath(path.name)
    fits = any(_fits(name.parts, PurePath(one).parts) for one in patterns_of(pattern))
    return _listed(source, [(name, path)] if fits else [])


def patterns_of(pattern: str) -> list[str]:
    """The patterns that stand in one text, with a vertical bar between them."""
    return [one.strip() for one in pattern.split("|")]


def _closed_folders(root: Path, pattern: Sequence[str]) -> Iterator[Path]:
    """The folders that a pattern with ** would lead into if they were not closed; `Path.glob` passes them over."""
    if "**" not in pattern:
        return
    closed = list[OSError]()
    for _ in os.walk(root.joinpath(*pattern[: pattern.index("**")]), onerror=closed.append):
        pass
    yield from (Path(error.filename) for error in closed if isinstance(error, PermissionError))


def is_listed(path: Place) -> bool:
    """Whether a file is, or should be, at a place."""
    return path.is_file() or (isinstance(path, Path) and path.is_symlink() and not path.exists())


def file_bytes(path: Place) -> int:
    """Bytes of a file; 0 of one that is not there, or no longer: its reading says why."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def open_source(spec: SourceSpec) -> Source:
    """The source that a spec names.

    Raises:
        ConfigError: no source of that kind, or a pattern that is none.
        DataError: there is nothing at its path.
    """
    spec = _without_wildcards(spec)
    for one in [] if spec.pattern is None else patterns_of(spec.pattern):
        if not one or PurePath(one).is_absolute() or ".." in PurePath(one).parts:
            raise ConfigError(
                f"source.pattern={spec.pattern!r} does not stay below the source's folder",
                allowed="such as **/*.py, or **/*.md | **/*.rst",
            )
    return cast(Source, find("sources", spec.kind)(spec))


def _without_wildcards(spec: SourceSpec) -> SourceSpec:
    """The spec with what stands in its path from the first * on as its pattern.

    Raises:
        ConfigError: it has another pattern beside.
    """
    path = spec.path or ""
    before, star, _ = path.partition("*")
    if not star or ("://" not in path and located(path).exists()):
        return spec
    if spec.pattern is not None:
        raise ConfigError(f"source.path={path!r} and source.pattern both say which files", fix="give one of them")
    folder, slash, _ = before.rpartition("/")
    below = path.removeprefix(folder + slash)
    return spec.model_copy(update={"path": folder or slash or ".", "pattern": below})


def sampled(files: Sequence[SourceFile], count: int, unit_bytes: int) -> Iterator[SourceFile]:
    """About `count` documents, spread over the files and their parts; of a part, its first ones."""
    parts = [part for file in files for part in file.parts(unit_bytes)]
    chosen = parts[:: max(1, len(parts) // count)]
    each = -(-count // max(1, len(chosen)))
    return (entry for part in chosen for entry in islice(part.entries(), each))


def _listed(source: str, found: Iterable[tuple[PurePath, Place]]) -> list[SourceFile]:
    """The files of a source, each with its path from the root, sorted by document id."""
    files = [
        SourceFile(
            document=f"{source}/{_name(path)}",
            path=place,
            bytes=file_bytes(place),
            group=_name(PurePath(path.parts[0])) if len(path.parts) > 1 else "",
        )
        for path, place in found
    ]
    return sorted(files, key=lambda file: file.document)


def _name(path: PurePath) -> str:
    """A path as text that UTF-8 can hold, whatever bytes the file system allowed in it."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
