"""Units of work: parts of a corpus that are read and encoded apart, in any order, each committed by a rename.

    all that decides a unit --hash--> units/read/3f/9a02... <--found again by any ingestion of the data folder

The functions here run in worker processes; this module imports no torch, so that such a process starts in a blink.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import pyarrow as pa

from foundation_core.data.rules.treatments import Treatments
from foundation_core.data.shards.dataset import arrow_bytes, read_arrow
from foundation_core.data.sources.documents import SourceFile
from foundation_core.data.sources.ids import PLACES_FILE, FirstOfEach
from foundation_core.data.sources.kept_digests import Hashed, hashed
from foundation_core.data.sources.modalities import LANGUAGE, Reader, read_files
from foundation_core.data.sources.withdrawal import NOTHING_WITHDRAWN, Withdrawal
from foundation_core.data.stopwatch import Stopwatch
from foundation_core.data.tokens.encoding import encode_texts
from foundation_core.errors import DataError, SetupError
from foundation_core.files import PARTIAL, committed, read_json, sha256_file, sha256_json, write_json

TOKENS = pa.schema({"document": pa.string(), "group": pa.string(), "tokens": pa.large_list(pa.int32())})
"""An encoded document; its last token is the end token."""

_SEEN_SECONDS = 90.0
"""How long a folder of the network may hide what another machine wrote: NFS keeps an absence in mind for 60 s."""
UNIT_FILE = "unit.json"
"""The file of a unit that says what the others must be."""
KEPT_FILE, DROPPED_FILE, QUARANTINED_FILE, SKETCHES_FILE, TOKENS_FILE = (
    f"{name}.arrow" for name in ("kept", "dropped", "quarantined", "sketches", "tokens")
)


@dataclass(frozen=True)
class Unit:
    """A folder of files, which counts if its `unit.json` names them and the work that made them.

    Args:
        identity: digest of everything that decides the files; another identity makes them worthless.
    """

    folder: Path
    identity: str

    @staticmethod
    def of(root: Path, phase: str, decides: Any) -> Unit:
        """The unit that is named by all that decides it.

        Args:
            root: of all units.
            phase: of the work, which is a folder below it.
            decides: as JSON has it.
        """
        identity = sha256_json([phase, decides])
        return Unit(root / phase.replace(" ", "-") / identity[:2] / identity[2:32], identity)

    def finished(self) -> bool:
        """Whether this work was done and its files are still what they were."""
        try:
            body = read_json(self.folder / UNIT_FILE)
            return body["identity"] == self.identity and all(
                sha256_file(self.folder / name) == digest for name, digest in body["files"].items()
            )
        except (DataError, OSError):
            return False

    def claimed(self) -> bool:
        """Whether it is finished. If so, it counts as used now, and pruning leaves it alone for a while."""
        with suppress(OSError):
            os.utime(self.folder)
        return self.finished()

    def wait_until_seen(self) -> None:
        """Return once what another process finished can be seen here.

        Raises:
            SetupError: it does not come to sight: that process wrote into another folder of the same path.
        """
        deadline = time.monotonic() + _SEEN_SECONDS
        while not (self.folder / UNIT_FILE).exists():
            if time.monotonic() > deadline:
                raise SetupError(
                    f"a process of this run finished {self.folder}, and it is not to be seen here",
                    allowed="nodes that all see the data folder under the same path, to read and to write",
                    fix="mount one folder on every node, then run the same command again",
                )
            time.sleep(0.1)

    def commit(self, files: Mapping[str, Any] | Iterable[tuple[str, Any]], **facts: Any) -> None:
        """Write the files and facts about them; the folder gets its name when all are there.

        Others may do the same work at the same time: whoever is first gives the name.

        Args:
            files: names and bytes; of an iterator, one file is held at a time.
        """
        made = self.folder.with_name(f"{self.folder.name}-{uuid4().hex}{PARTIAL}")
        try:
            digests = {}
            for name, data in files.items() if isinstance(files, Mapping) else files:
                with committed(made / name) as sink:
                    sink.write(data)
                digests[name] = hashlib.sha256(data).hexdigest()
            write_json(made / UNIT_FILE, {"identity": self.identity, "files": digests, "facts": facts})
            self._name(made)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _name(self, made: Path) -> None:
        while True:
            try:
                os.replace(made, self.folder)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if self.finished():
                return
            with suppress(FileNotFoundError):  # damaged, and perhaps removed by another who found it so
                damaged = made.with_name(f"{self.folder.name}-{uuid4().hex}{PARTIAL}")
                os.replace(self.folder, damaged)
                shutil.rmtree(damaged, ignore_errors=True)

    def facts(self) -> dict[str, Any]:
        """What was said of a finished unit."""
        found: dict[str, Any] = read_json(self.folder / UNIT_FILE)["facts"]
        return found

    def table(self, name: str) -> pa.Table:
        """One of the unit's tables, memory-mapped."""
        return read_arrow(self.folder / name)


class Work(Protocol):
    """How the stage does pieces of work: named, committed, by any number of workers."""

    def unit(self, phase: str, number: int, documents: Sequence[str]) -> Unit:
        """A unit of work of a phase."""

    def finish(self, phase: str, function: Callable[[Any], None], pieces: Sequence[Any]) -> None:
        """Do every piece whose unit is not finished yet."""

    def found(self, step: str, decides: Any) -> Unit:
        """The unit of what a step finds among all documents; it may be finished already."""


@dataclass(frozen=True)
class ReadPiece:
    """A unit to read and filter.

    Args:
        treatments: of the documents: what cleans and judges them.
        sketch: what is computed of each text that is kept, for fuzzy deduplication. None: nothing.
        withdrawal: of documents in files of many; the other files are not in it.
    """

    unit: Unit
    files: tuple[SourceFile, ...]
    reader: Reader
    treatments: Treatments
    sketch: Callable[[pa.Array], pa.Array] | None = None
    withdrawal: Withdrawal = NOTHING_WITHDRAWN

    def __str__(self) -> str:
        """What is read."""
        return f"reading {_names([file.document for file in self.files])}"


@dataclass(frozen=True)
class EncodePiece:
    """A unit to encode.

    Args:
        rows: which of the documents that the unit kept are wanted; the others are copies.
    """

    unit: Unit
    read: Unit
    rows: tuple[int, ...]
    tokenizer: Path

    def __str__(self) -> str:
        """What is encoded: the folder of the unit that read it."""
        return f"encoding {self.read.folder.name}"  # names of documents are in a file, which may be damaged


@dataclass(frozen=True)
class FilesPiece:
    """Files whose digests are wanted."""

    files: tuple[SourceFile, ...]

    def __str__(self) -> str:
        """What is read."""
        return f"digests of {_names([file.document for file in self.files])}"


def digests_of(piece: FilesPiece) -> list[Hashed]:
    """Each file's document id and its digest."""
    return [hashed(file) for file in piece.files]


def _names(documents: Sequence[str]) -> str:
    few = len(documents) < 3
    return ", ".join(documents) if few else f"{len(documents)} items, {documents[0]} to {documents[-1]}"


class ReadDone(NamedTuple):
    """What the one who waits for a unit is told of it: how many documents went in, how many of them could not be read,
    and where the seconds went."""

    documents: int
    quarantined: int
    seconds: Mapping[str, float]


def read_unit(piece: ReadPiece) -> ReadDone:
    """Commit a unit's documents: kept, dropped and quarantined.

    Raises:
        DataError: a document is in none of the three, or in two.
    """
    withdrawn, found, watch = Counter[str](), Counter[str](), Stopwatch()
    with watch.of("reading"):
        entries = (entry for file in piece.withdrawal.leaves(piece.files, withdrawn) for entry in file.entries())
        first = FirstOfEach(entries)
        documents, quarantined = read_files(first, piece.reader, found)
    with watch.of("language"):
        documents, languages = _with_languages(documents, piece.reader)
    kept, dropped, changes = piece.treatments.applied(documents, watch)
    read = [name for table in (documents, quarantined) for name in table["document"].to_pylist()]
    accounted = [name for table in (kept, dropped, quarantined) for name in table["document"].to_pylist()]
    if sorted(accounted) != sorted(read):
        raise DataError(
            f"{len(read)} documents went in; {len(kept)} kept + {len(dropped)} dropped + "
            f"{len(quarantined)} quarantined came out, and they are not the same",
            fix="look for a filter measure that gives no number for some document",
        )
    tables = {KEPT_FILE: kept, DROPPED_FILE: dropped, QUARANTINED_FILE: quarantined}
    if first.places:
        tables[PLACES_FILE] = first.table()
    if piece.sketch is not None:
        with watch.of("signatures"):
            tables[SKETCHES_FILE] = pa.table({"keys": piece.sketch(kept["text"].combine_chunks())})
    with watch.of("writing"):
        piece.unit.commit(
            {name: arrow_bytes(table) for name, table in tables.items()},
            documents=len(read),
            quarantined=len(quarantined),
            cut=found["cut"],
            languages=languages,
            changes=changes,
            withdrawn=dict(sorted(withdrawn.items())),
        )
    return ReadDone(len(read), len(quarantined), dict(watch.seconds))


def _with_languages(documents: pa.Table, reader: Reader) -> tuple[pa.Table, dict[str, int]]:
    """Documents with the language of each, where that is kept, and how many there are of each language."""
    if not reader.by_language or not reader.has_text:
        return documents, {}
    from foundation_core.data.rules.language import languages  # a library that few ingestions need

    found = languages(documents["text"].combine_chunks())
    counts = {row["values"]: row["counts"] for row in found.value_counts().to_pylist()}
    return documents.set_column(documents.schema.get_field_index(LANGUAGE.name), LANGUAGE, found), counts


def encode_unit(piece: EncodePiece) -> Mapping[str, float]:
    """Commit a unit's tokens, a row for each wanted document; returns where the seconds went."""
    watch = Stopwatch()
    with watch.of("encoding"):
        wanted = kept_documents(piece.read, pa.array(piece.rows, pa.int64()))
        tokens = encode_texts(piece.tokenizer, wanted["text"])
    with watch.of("writing"):
        table = pa.table([wanted["document"], wanted["group"], tokens], schema=TOKENS)
        piece.unit.commit({TOKENS_FILE: arrow_bytes(table)})
    return dict(watch.seconds)


def kept_documents(read: Unit, rows: pa.Array) -> pa.Table:
    """Some of the documents that a read unit kept, in the order of the rows."""
    return read.table(KEPT_FILE).take(rows)
