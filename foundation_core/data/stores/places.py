"""Places where files are: folders of this machine, and stores such as S3, behind the part of `Path` that sources use.

    /data/texts   s3://bucket/texts   gs://bucket/texts   hf://datasets/owner/name   https://host/reviews.jsonl.gz

Keys come from where each store's own tools look: the environment, their files, the machine's role. They are never part
of an address here, so that no log, card or run holds them.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

from foundation_core.errors import ConfigError, SetupError
from foundation_core.plugins import need

STORES = ("s3", "gs", "hf", "http", "https")
"""Those that sources are read from; checkpoints may be in any store that fsspec speaks to (`written_at`)."""
_SPEAKS = {"hf": ("huggingface_hub",), "http": ("aiohttp",), "https": ("aiohttp",)}
"""The modules that speak to a store, where pyarrow does not."""
_BY_PYARROW = ("s3", "gs")
_ONLY_READ = ("http", "https", "hf", "zip", "tar", "libarchive", "data", "git", "github", "reference", "cached")
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gs": ("STORAGE_EMULATOR_HOST",), "hf": ("HF_ENDPOINT",),
}  # fmt: skip
"""Variables by which a store's own tools are led to another place, the first that is set."""
_NOT_ALLOWED = (401, 403)
"""HTTP's answers to a key that does not open."""
_CHUNK_BYTES = 8 << 20  # of an upload: a store takes no more than 10,000 parts of a file
_SECRET = re.compile(
    r"(token|signature|secret|credential|passw(or)?d|pwd|access_?key(_?id)?|api_?key|[^a-z_](key|auth|sig))=",
    re.IGNORECASE,
)


class Stat(Protocol):
    """What is known of a file without reading it."""

    @property
    def st_size(self) -> int:
        """Bytes."""

    @property
    def st_mtime_ns(self) -> int:
        """When it was changed; 0 where a store does not say."""


class Place(Protocol):
    """A file or a folder: what sources need of `pathlib.Path`."""

    @property
    def name(self) -> str:
        """The last part of its address."""

    @property
    def suffix(self) -> str:
        """How its name ends, from the last dot on."""

    @property
    def parent(self) -> Place:
        """The folder that it lies in."""

    def __truediv__(self, below: Any, /) -> Place: ...

    def __hash__(self) -> int: ...

    def exists(self) -> bool:
        """Whether there is something."""

    def is_dir(self) -> bool:
        """Whether it is a folder."""

    def is_file(self) -> bool:
        """Whether it is a file."""

    def glob(self, pattern: str, /) -> Iterator[Place]:
        """The files and folders below it that match."""

    def stat(self) -> Stat:
        """What is known of it; raises OSError where there is nothing."""

    def read_bytes(self) -> bytes:
        """What the file holds."""

    def open(self, mode: Any = "rb", /) -> Any:
        """The file, to be read and sought in."""


def located(address: str) -> Place:
    """The place of an address: a path of this machine, or a URL of a store.

    Raises:
        ConfigError: no such store, or an address that holds a key.
        SetupError: what speaks to the store is not installed.
    """
    protocol, separator, _ = address.partition("://")
    if not separator:
        return Path(address).expanduser()
    if protocol not in STORES:
        raise ConfigError(f"{protocol}:// is no store that can be read", allowed="a path, " + ", ".join(STORES))
    _holds_no_key(address)
    need("remote", "fsspec", *_SPEAKS.get(protocol, ()))
    return Remote(protocol, address if protocol.startswith("http") else address.partition("://")[2].rstrip("/"))


def written_at(address: str) -> Place:
    """The place of an address that is written: a path, or a URL of any store that fsspec speaks to.

    Raises:
        ConfigError: no such store, one that cannot be written, or an address that holds a key.
        SetupError: what speaks to the store is not installed.
    """
    protocol, separator, rest = address.partition("://")
    if not separator:
        return Path(address).expanduser()
    _holds_no_key(address, user_allowed=protocol not in _ENDPOINTS)
    need("remote", "fsspec")
    if protocol in _BY_PYARROW:
        return Remote(protocol, rest.rstrip("/"))
    speaker = _speaker(protocol)
    options = speaker._get_kwargs_from_urls(address)
    return Remote(protocol, speaker._strip_protocol(address).rstrip("/"), options=tuple(sorted(options.items())))


def _speaker(protocol: str) -> Any:
    """The class of fsspec that writes to a protocol's stores."""
    from fsspec import get_filesystem_class

    refused = ConfigError(
        f"{protocol}:// is no store that can be written",
        allowed="a path, s3://, gs://, or what else fsspec writes to, as abfs://, sftp://, file://",
    )
    if protocol in _ONLY_READ:
        raise refused
    try:
        return get_filesystem_class(protocol)
    except ImportError as error:
        raise SetupError(
            f"what speaks to {protocol}:// is not installed: {error}",
            fix="install it beside this project, on every node; or name a path, s3:// or gs://",
        ) from error
    except ValueError as error:
        raise refused from error


def _holds_no_key(address: str, *, user_allowed: bool = False) -> None:
    parts = urlsplit(address)
    if (parts.username and not user_allowed) or parts.password or _SECRET.search(f"?{parts.query}"):
        raise ConfigError(
            f"the address of a store at {parts.hostname} holds a key, and would be shown in logs and cards",
            fix="give the key to the environment, as the store's own tools read it",
        )


def below(root: Place, path: Place) -> PurePosixPath:
    """The path of a file from a folder that it lies in."""
    if isinstance(root, Remote) and isinstance(path, Remote):
        return PurePosixPath(path.key.removeprefix(root.key).lstrip("/"))
    return PurePosixPath(cast(Path, path).relative_to(cast(Path, root)).as_posix())


class _Known(NamedTuple):
    """What a store knows of a file; `version` names its content, where the store has such a name."""

    st_size: int
    st_mtime_ns: int = 0
    version: str = ""


@dataclass(frozen=True)
class Remote:
    """A file or folder of a store; it travels to worker processes without its connection.

    Args:
        key: bucket and key, or the whole address for HTTP.
        size: bytes, where a listing has said so.
        modified_ns, version: what it has said beside.
        options: what else of its address says where it is, as host and port, for fsspec.
    """

    protocol: str
    key: str
    size: int | None = field(default=None, compare=False)
    options: tuple[tuple[str, Any], ...] = ()
    modified_ns: int = field(default=0, compare=False)
    version: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.key if self.protocol.startswith("http") else f"{self.protocol}://{self.key}"

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self._path.name

    @property
    def suffix(self) -> str:
        """How its name ends, from the last dot on."""
        return self._path.suffix

    @property
    def parent(self) -> Remote:
        """The folder that it lies in."""
        return Remote(self.protocol, self.key.rstrip("/").rpartition("/")[0], options=self.options)

    @property
    def _path(self) -> PurePosixPath:
        return PurePosixPath(urlsplit(self.key).path if self.protocol.startswith("http") else self.key)

    def __truediv__(self, below: Any, /) -> Remote:
        return Remote(self.protocol, f"{self.key.rstrip('/')}/{below}", options=self.options)

    @property
    def _store(self) -> Any:
        return _store(self.protocol, self.options)

    @property
    def where(self) -> str:
        """Its address with that of its store: the environment may lead to another store of the same names."""
        return f"{_endpoint(self.protocol)} {self} {self.options!r}"

    def exists(self) -> bool:
        """Whether there is something.

        Raises:
            SetupError: the store does not say, as of what a key does not open; fsspec's own `exists` would say no.
        """
        with _asked(self):
            try:
                self._store.info(self.key)
            except FileNotFoundError:
                return False
            return True

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        with _told():
            return self.size is None and bool(self._store.isdir(self.key))

    def is_file(self) -> bool:
        """Whether it is a file."""
        with _told():
            return self.size is not None or bool(self._store.isfile(self.key))

    def glob(self, pattern: str, /) -> Iterator[Remote]:
        """The files below it that match."""
        wanted = f"{self.key.rstrip('/')}/{pattern}"
        with _asked(self):
            found = _found(self._store, self.key, wanted)
        for key, size, modified_ns, version in found:
            yield Remote(self.protocol, key, size, self.options, modified_ns, version)

    def stat(self) -> _Known:
        """What is known of it: by the listing that found it, or its store is asked."""
        return self.stat_now() if self.size is None else _Known(self.size, self.modified_ns, self.version)

    def stat_now(self) -> _Known:
        """What its store says of it at this moment."""
        anew = {"refresh": True} if self.protocol == "hf" else {}  # which else repeats what a listing has said
        with _told():
            size, modified_ns, version = _facts(self._store.info(self.key, **anew))
        return _Known(size or 0, modified_ns, version)

    def read_bytes(self) -> bytes:
        """What the file holds."""
        with _told():
            return cast(bytes, self._store.cat_file(self.key))

    def open(self, mode: Any = "rb", /) -> BinaryIO:
        """The file, to be read and sought in."""
        with _told():
            return cast(BinaryIO, self._store.open(self.key, mode))

    def write(self, source: BinaryIO) -> None:
        """Write the file: what another one holds from where it stands."""
        with _told():
            if self.protocol not in _BY_PYARROW:  # whose objects lie in no folders
                self._store.makedirs(self.parent.key, exist_ok=True)
            with self._store.open(self.key, "wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK_BYTES)

    def unlink(self) -> None:
        """Remove the file; nothing if it is not there."""
        with suppress(FileNotFoundError), _told():
            self._store.rm_file(self.key)


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong between here and a store, as an OSError whose words hold no address."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
    except PermissionError as error:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from error
    except Exception as error:  # each store's library has errors of its own, and their words hold addresses
        if getattr(getattr(error, "response", None), "status_code", None) in _NOT_ALLOWED:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from error
        raise OSError(errno.EIO, f"the store did not give it ({type(error).__name__})") from error


@contextmanager
def _asked(place: Remote) -> Iterator[None]:
    """What goes wrong while a store is asked what it has, for the person who named it.

    Raises:
        SetupError: it does not say.
    """
    try:
        with _told():
            yield
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise SetupError(
            f"{place} may not be read with the key that there is, or without one",
            fix="give this machine the store's key, as the store's own tools read it",
        ) from error
    except OSError as error:
        raise SetupError(
            f"{place}: {error.strerror}", fix="check the address and the connection; then run the same command again"
        ) from error


def _facts(said: Mapping[str, Any]) -> tuple[int | None, int, str]:
    """Bytes, time of modification and version of what a store says of a file; None, 0 and "" where it does not.

    A web server's ETag is none: it may be a time in seconds.
    """
    return said.get("size"), _whole_seconds(said.get("mtime")), said.get("blob_id") or ""


def _whole_seconds(moment: Any) -> int:
    """A store's time in nanoseconds: whole seconds, as some tell parts of them in listings alone."""
    return int(moment.timestamp()) * 10**9 if isinstance(moment, datetime) else 0


def _found(store: Any, root: str, pattern: str) -> Iterator[tuple[str, int | None, int, str]]:
    """Key, size, time of modification and version of the files below a root that match a pattern.

    pyarrow's stores are listed at once: folder by folder, Google's shows only those that somebody made as such.
    """
    from fsspec.implementations.arrow import ArrowFSWrapper
    from fsspec.utils import glob_translate

    if not isinstance(store, ArrowFSWrapper):
        files = store.glob(pattern, detail=True)
        return ((key, *_facts(facts)) for key, facts in files.items() if facts["type"] == "file")
    from pyarrow.fs import FileSelector

    matches = re.compile(glob_translate(pattern)).match
    listed = store.fs.get_file_info(FileSelector(root, recursive=True))
    fitting = (each for each in listed if each.is_file and matches(each.path))
    return ((each.path, each.size, _whole_seconds(each.mtime), "") for each in fitting)


def _store(protocol: str, options: tuple[tuple[str, Any], ...] = ()) -> Any:
    """The fsspec file system of a protocol, at the endpoint that the environment names for it now."""
    return _connected(protocol, _endpoint(protocol), options)


def _endpoint(protocol: str) -> str:
    """Where the environment leads the tools of a store; "": to its own place."""
    return next(filter(None, map(os.environ.get, _ENDPOINTS.get(protocol, ()))), "")


@cache
def _connected(protocol: str, endpoint: str, options: tuple[tuple[str, Any], ...]) -> Any:
    """A file system, connected once. S3 and Google's are those that pyarrow brings."""
    import fsspec

    if protocol == "hf":
        return fsspec.filesystem(protocol, endpoint=endpoint or None)
    if protocol not in _ENDPOINTS:
        return fsspec.filesystem(protocol, **dict(options))
    import pyarrow.fs
    from fsspec.implementations.arrow import ArrowFSWrapper

    if protocol == "s3":
        return ArrowFSWrapper(pyarrow.fs.S3FileSystem(endpoint_override=endpoint or None))
    scheme, _, host = endpoint.rpartition("://")
    stand_in = {"anonymous": True, "endpoint_override": host, "scheme": scheme or "http"} if host else {}
    return ArrowFSWrapper(pyarrow.fs.GcsFileSystem(**stand_in))
