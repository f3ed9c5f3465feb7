"""Whether a process that works on units sees what the first process sees: the same folders, on whatever machine.

A node without the data folder would write units that nobody finds, and one without the source, or with another one at
the same path, would quarantine what it misses: each process on another machine, or in another container, looks once,
before its first unit.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from foundation_core.data.sources.documents import SourceFile, file_bytes
from foundation_core.errors import SetupError
from foundation_core.files import full_disk_said

MARK_FILE = "sight"
_LOOKED_AT = 64
"""Files of a source whose sizes are compared, spread over all of them."""


@dataclass(frozen=True)
class Sight:
    """What there is to be seen.

    Args:
        mark: a file in the folder of results.
        word: what stands in it.
        files: of the source, each with its bytes; none of stores, which look the same from everywhere.
        view: of the process that listed them; another process of the same view sees all that it sees.
    """

    mark: Path
    word: str
    files: tuple[tuple[Path, int], ...]
    view: str

    def look(self) -> None:
        """See whether it is so here.

        Raises:
            SetupError: it is not.
        """
        if _view() == self.view:
            return
        here = socket.gethostname()
        try:
            word = self.mark.read_text()
        except OSError as error:
            word = f"({error.strerror})"
        if word != self.word:
            raise SetupError(
                f"{here} does not see the data folder of this run: {self.mark} is not the same there",
                allowed="nodes that all see the data folder under the same path, to read and to write",
                fix="mount it on every node, name a folder that they share with FOUNDATION_HOME or --home, or run"
                " without a cluster",
            )
        for path, size in self.files:
            found = file_bytes(path)
            if found != size:
                raise SetupError(
                    f"{here} does not see the source as it was listed: {path} has {found:,} bytes there and had"
                    f" {size:,}",
                    allowed="a source that all nodes see under the same path, and that nobody changes meanwhile",
                    fix="mount it on every node or read it from a store (s3://, gs://, hf://, https://), then run the"
                    " same command again",
                )


def sight_of(folder: Path, files: Sequence[SourceFile]) -> Sight:
    """What those who work on units must see. Its mark stands in the folder until somebody removes it.

    Args:
        folder: of the result.
        files: of the source.
    """
    mark, word = folder / MARK_FILE, secrets.token_hex(16)
    with full_disk_said(mark):
        mark.write_text(word)
    return Sight(mark, word, tuple(_some(files)), _view())


def _view() -> str:
    """The running kernel and the mounts of this process: what decides which file a path is."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text()}{os.readlink('/proc/self/ns/mnt')}"


def _some(files: Sequence[SourceFile]) -> Iterator[tuple[Path, int]]:
    """Some of the files that lie in folders, with their sizes."""
    for file in files[:: -(-len(files) // _LOOKED_AT) or 1]:
        if isinstance(file.path, Path) and os.path.isfile(file.path):
            yield file.path.absolute(), file_bytes(file.path)


@dataclass(frozen=True)
class Seeing:
    """A function of pieces of work that looks first, once in each process."""

    function: Callable[[Any], Any]
    sight: Sight

    def __call__(self, piece: Any) -> Any:
        """What the function makes of the piece.

        Raises:
            SetupError: this machine does not see what it should.
        """
        _look(self.sight)
        return self.function(piece)


@lru_cache(maxsize=8)
def _look(what: Sight) -> None:
    what.look()
