"""Shards in a store, kept in a folder of this machine: bounded, compared with their sha256, shared by all processes.

    s3://bucket/corpus/tokens/train/shard-00003.arrow --stream--> <sha256>.partial --hash, rename--> <sha256>.arrow

A kept file is named by what it holds, so two data sets with a shard in common keep it once, and a changed object can
never take the place of what the manifest names. Whoever brings a file holds the lock of its unfinished one; others wait
and find it. A process that reads a data set holds a lock as long as it lives: those shards do not leave.

The smallest thing that is brought is a shard, as it is the smallest one whose hash the manifest has;
`ingest.shard_tokens` decides its size.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from foundation_core.data.stores.places import Place, located
from foundation_core.errors import ConfigError, DataError, FoundationError, SetupError, ShardError, TransientError
from foundation_core.files import PARTIAL, disk_is_full, found_no_room, read_json, sha256_file, write_json
from foundation_core.specs.loading import ShardStoreSpec

_AT_ONCE = 8  # connections
_CHUNK_BYTES = 4 << 20
_WAITS_SECONDS = (0.5, 2.0)
"""How long a broken connection is left alone before each new try."""


class ShardCache:
    """A folder of kept shards, for any number of processes.

    Args:
        bound_bytes: the most that is kept.
    """

    def __init__(self, folder: Path, bound_bytes: int) -> None:
        self.folder, self.bound_bytes = folder, bound_bytes
        self._expected: dict[str, int] = {}  # bytes of each data set
        self._held: list[BinaryIO] = []  # open as long as this process lives, and with them their locks
        self._compared = set[str]()
        folder.mkdir(parents=True, exist_ok=True)

    def expect(self, content: str, shards: Collection[Mapping[str, Any]]) -> None:
        """Hold the shards of a data set from now on, whether they are here yet or not.

        Raises:
            ConfigError: they and those expected before are more than the bound.
        """
        self._expected[content] = sum({shard["sha256"]: shard["bytes"] for shard in shards}.values())
        if (needed := sum(self._expected.values())) > self.bound_bytes:
            raise ConfigError(
                f"pretrain.shards.cache_bytes={self.bound_bytes} cannot hold the corpus, and each batch reads"
                " everywhere in it",
                allowed=f"at least {needed}, what its shards take",
                fix="allow as much, or copy the shards into the data folder",
            )
        path = self.folder / f"{content}.json"
        with self._alone():
            if not path.exists():
                write_json(path, [shard["sha256"] for shard in shards])
            held = open(path, "rb")  # noqa: SIM115  # the lock lasts as long as the file is open
            fcntl.flock(held, fcntl.LOCK_SH)
        self._held.append(held)

    def path(self, shard: Mapping[str, Any], source: Place) -> Path:
        """The kept file of a shard, compared with its sha256; brought from the source where it is not there.

        Raises:
            DataError: the source is not what the manifest says.
            SetupError: there is no room.
            TransientError: the connection broke at every try.
        """
        path, partial = self.folder / f"{shard['sha256']}.arrow", self.folder / f"{shard['sha256']}{PARTIAL}"
        while not self._is_here(path, shard):
            with open(partial, "r+b", opener=_made) as sink:
                fcntl.flock(sink, fcntl.LOCK_EX)  # another process may be bringing it
                if not _is_named(sink, partial):
                    continue
                try:
                    self._reserve(sink, shard["bytes"])
                    _bring(shard, source, sink)
                    os.replace(partial, path)
                except BaseException:
                    partial.unlink(missing_ok=True)
                    raise
                self._compared.add(shard["sha256"])
        os.utime(path)  # the longest unused one leaves first
        return path

    def _is_here(self, path: Path, shard: Mapping[str, Any]) -> bool:
        """Whether the file is there and holds what it should; a damaged one is removed."""
        if shard["sha256"] not in self._compared and path.exists():
            if sha256_file(path) == shard["sha256"]:
                self._compared.add(shard["sha256"])
            else:
                path.unlink()
        return path.exists()

    def _reserve(self, sink: BinaryIO, size: int) -> None:
        """Take room for a file, and let others leave for it."""
        with self._alone():
            for partial in self.folder.glob(f"*{PARTIAL}"):
                _remove_if_nobody_holds(partial)
            sizes = {path: path.stat() for path in self.folder.glob("*.arrow")}
            taken = sum(known.st_size for known in sizes.values())
            taken += sum(path.stat().st_size for path in self.folder.glob(f"*{PARTIAL}"))
            kept = self._held_by_anyone()
            for path in sorted(sizes, key=lambda path: sizes[path].st_mtime_ns):
                if taken + size > self.bound_bytes and path.stem not in kept:
                    path.unlink()
                    taken -= sizes[path].st_size
            if taken + size > self.bound_bytes:
                raise SetupError(
                    f"{self.folder} has no room for a shard of {size} bytes: {taken} of {self.bound_bytes} bytes are"
                    " in use by other trainings",
                    allowed=f"pretrain.shards.cache_bytes of {taken + size} or more",
                    fix="allow more, name another folder in pretrain.shards.cache_folder, or wait for them",
                )
            try:
                os.posix_fallocate(sink.fileno(), 0, size)
            except OSError as error:
                if found_no_room(self.folder, error):
                    raise disk_is_full(self.folder, error) from error
                raise

    def _held_by_anyone(self) -> set[str]:
        """The sha256s of shards whose data sets a living process reads; what is said of others is forgotten."""
        kept = set[str]()
        for path in self.folder.glob("*.json"):
            shards = read_json(path)
            if not _remove_if_nobody_holds(path):
                kept.update(shards)
        return kept

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process changes what is kept."""
        with open(self.folder / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@dataclass(frozen=True)
class StoreShelf:
    """A folder of shards in a store, read through a cache."""

    cache: ShardCache
    place: Place

    def __truediv__(self, below: str) -> StoreShelf:
        return StoreShelf(self.cache, self.place / below)

    def expect(self, content: str, shards: Collection[Mapping[str, Any]]) -> None:
        """Make sure that there is room for the shards of a data set."""
        self.cache.expect(content, shards)

    def path(self, shard: Mapping[str, Any]) -> Path:
        """Where a shard lies now, compared with its sha256."""
        return self.cache.path(shard, self.place / shard["file"])

    def bring(self, shards: Collection[Mapping[str, Any]]) -> None:
        """Several of them, side by side."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="shelf") as threads:
            for _ in threads.map(self.path, shards):
                pass


def store_shelf(spec: ShardStoreSpec, corpus: Path) -> StoreShelf | None:
    """The shelf of a copy of an ingest result; None where the shards lie in the data folder.

    Args:
        corpus: the result's folder, which lies in the data folder as results/ingest/NAME.

    Raises:
        ConfigError: there is no such store.
    """
    if spec.address is None:
        return None
    named = spec.cache_folder
    folder = Path(named).expanduser() if named else corpus.absolute().parents[2] / "cache" / "shards"
    return StoreShelf(ShardCache(folder, spec.cache_bytes), located(spec.address))


def _bring(shard: Mapping[str, Any], source: Place, sink: BinaryIO) -> None:
    """Write a shard into a file whose room is taken, with new tries where the connection breaks."""
    for wait in (*_WAITS_SECONDS, None):
        try:
            _stream(shard, source, sink)
            return
        except FoundationError:
            raise
        except FileNotFoundError as error:
            raise DataError(f"{source} is not there", fix="copy the ingest result's shards there again") from error
        except PermissionError as error:
            raise SetupError(
                f"{source} may not be read", fix="give this machine the store's key, as the store's own tools read it"
            ) from error
        except Exception as error:  # each store's library has errors of its own
            if found_no_room(Path(sink.name), error):
                raise disk_is_full(Path(sink.name), error) from error
            if wait is None:
                raise TransientError(
                    f"the store did not give {source} in {len(_WAITS_SECONDS) + 1} tries ({type(error).__name__})",
                    fix="run the same command again: it continues",
                ) from error
        time.sleep(wait)


def _stream(shard: Mapping[str, Any], source: Place, sink: BinaryIO) -> None:
    size, state = source.stat().st_size, hashlib.sha256()
    if size != shard["bytes"]:
        raise _changed(shard, source, f"it is {size} bytes long")
    sink.seek(0)
    with source.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            state.update(chunk)
            sink.write(chunk)
    if sink.tell() < size:  # some libraries take a connection that broke for the end
        raise EOFError
    sink.flush()
    os.fsync(sink.fileno())
    if state.hexdigest() != shard["sha256"]:
        raise _changed(shard, source, f"its sha256 is {state.hexdigest()}")


def _changed(shard: Mapping[str, Any], source: Place, what: str) -> ShardError:
    return ShardError(
        f"{source} is not the shard of this corpus: {what}; the manifest says {shard['bytes']} bytes with sha256"
        f" {shard['sha256']}",
        fix="copy the ingest result's shards there again",
    )


def _made(path: str, flags: int) -> int:
    """A file that is made if it is not there, and not emptied if it is."""
    return os.open(path, flags | os.O_CREAT, 0o644)


def _is_named(file: BinaryIO, path: Path) -> bool:
    """Whether a path still names an open file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _remove_if_nobody_holds(path: Path) -> bool:
    """Remove a file on which no process holds a lock; whether it did."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink()
        return True
    return True
