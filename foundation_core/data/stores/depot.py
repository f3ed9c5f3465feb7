"""A folder that files are put into: of this machine, or in a store.

    depot = Depot.at("s3://bucket/run");  depot.put("step-8/rank-0", file);  depot.fetch("step-8/rank-0", path)

Places (places.py) are read; this is the part that also writes. A file of a folder appears whole or not at all; an
object of a store, when its upload is closed: a reader must know its hash.
"""

from __future__ import annotations

import errno
import shutil
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from foundation_core.data.stores.places import Place, Remote, written_at
from foundation_core.errors import SetupError
from foundation_core.files import PARTIAL, full_disk_said

_CHUNK_BYTES = 8 << 20


class Depot:
    """Files by name, of which a name may hold slashes. All methods raise OSError if the place does not answer."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def __str__(self) -> str:
        return str(self.place)

    @staticmethod
    def at(address: str) -> Depot:
        """The depot of an address: a path of this machine, or a URL of any store that fsspec writes to.

        Raises:
            ConfigError: no such store, one that cannot be written, or an address that holds a key.
            SetupError: what speaks to the store is not installed.
        """
        return Depot(written_at(address))

    def names(self) -> list[str]:
        """All files in it, sorted."""
        root = str(self.place)
        try:
            found = [path for path in self.place.glob("**/*") if path.is_file()]
        except FileNotFoundError:
            return []
        except SetupError as error:
            raise OSError(errno.EIO, error.found) from error
        return sorted(str(path).removeprefix(root).lstrip("/") for path in found)

    def put(self, name: str, source: BinaryIO) -> None:
        """Write a file: what an open one holds from where it stands."""
        target = self.place / name
        if isinstance(target, Remote):
            target.write(source)
            return
        path = Path(str(target))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + PARTIAL)
        with open(partial, "wb") as sink:
            shutil.copyfileobj(source, sink, _CHUNK_BYTES)
        partial.replace(path)

    def put_bytes(self, name: str, body: bytes) -> None:
        """Write a small file."""
        self.put(name, BytesIO(body))

    def read_bytes(self, name: str) -> bytes:
        """What a small file holds; FileNotFoundError if it is not there."""
        return (self.place / name).read_bytes()

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file out of it.

        Raises:
            DiskFullError: there is no room for it here.
        """
        with (self.place / name).open("rb") as source, full_disk_said(path), open(path, "wb") as sink:
            shutil.copyfileobj(source, sink, _CHUNK_BYTES)

    def remove(self, name: str) -> None:
        """Remove a file; nothing if it is not there."""
        target = self.place / name
        if isinstance(target, Remote):
            target.unlink()
        else:
            Path(str(target)).unlink(missing_ok=True)
