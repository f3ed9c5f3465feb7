"""What a training must keep beside its state: it lies in the stage's folder, and travels with each checkpoint.

    weights.safetensors, the best so far          --a link-->  step-8/best.safetensors, hashed like the ranks' files
    quarantine.json, memory.json, precision.json  --------->  step-8/manifest.json, under "found"

Whoever goes on from a checkpoint elsewhere, where the folder has none of them, gets them back as they were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from foundation_core.errors import CheckpointError, DataError, FoundationError
from foundation_core.files import PARTIAL, link_file, read_json, write_json
from foundation_core.train import manifest
from foundation_core.train.ledger import LEDGER_FILE, MEMORY_FILE
from foundation_core.train.manifest import BEST_FILE, HASH
from foundation_core.train.precision import PRECISION_FILE
from foundation_core.train.writer import hash_file

FOUND_FILES = (LEDGER_FILE, MEMORY_FILE, PRECISION_FILE)
"""What a training found out on its way, and would have to find out again."""


class Beside:
    """What lies beside the checkpoints of one training; rank 0 asks it.

    Args:
        folder: of the stage.
        weights: name of the file of the best weights in it; it is replaced, and never written into.
    """

    def __init__(self, folder: Path, weights: str) -> None:
        self._folder, self._weights = folder, folder / weights
        self._hashed: tuple[tuple[int, int, int], str] | None = None

    def found(self) -> dict[str, Any]:
        """What was found out so far, by the name of its file."""
        paths = [self._folder / name for name in FOUND_FILES]
        return {path.name: read_json(path) for path in paths if path.exists()}

    def keep(self, partial: Path) -> Callable[[], list[dict[str, Any]]]:
        """Take the best weights into a checkpoint that begins: at once, since the next validation may replace them.

        Returns:
            What a thread asks later: what the manifest says of the file. It raises what went wrong here, so that
            all ranks hear of it as of any other file.
        """
        path = partial / BEST_FILE
        if not self._weights.is_file():
            return list
        try:
            link_file(self._weights, path)
        except (OSError, FoundationError) as error:
            failed = error

            def fail() -> list[dict[str, Any]]:
                raise failed

            return fail
        return lambda: [{"file": BEST_FILE, "bytes": path.stat().st_size, HASH: self._hash(path)}]

    def lacks_best(self, body: Mapping[str, Any]) -> bool:
        """Whether a checkpoint counts on best weights that are neither in it nor in the folder."""
        return bool(body["state"].get("best_step")) and _best(body) is None and not self._weights.is_file()

    def bring_back(self, checkpoint: Path, body: Mapping[str, Any]) -> None:
        """Let the folder have the best weights that a checkpoint knows, if it has none or others.

        Raises:
            DiskFullError: there is no room for a copy, where a link cannot be.
        """
        entry, source = _best(body), checkpoint / BEST_FILE
        if entry is None or self._is_best(source, entry):
            return
        partial = self._weights.with_name(self._weights.name + PARTIAL)
        link_file(source, partial)
        os.replace(partial, self._weights)

    def _is_best(self, source: Path, entry: Mapping[str, Any]) -> bool:
        if not self._weights.is_file():
            return False
        if self._weights.samefile(source):
            return True
        return bool(self._weights.stat().st_size == entry["bytes"]) and hash_file(self._weights) == entry[HASH]

    def _hash(self, path: Path) -> str:
        """The hash of the weights, which most checkpoints share with the one before."""
        stat = path.stat()
        known = stat.st_ino, stat.st_mtime_ns, stat.st_size
        if self._hashed is None or self._hashed[0] != known:
            self._hashed = known, hash_file(path)
        return self._hashed[1]


def recall(folder: Path, manifests: Iterable[Mapping[str, Any]]) -> None:
    """Let a stage's folder know what its training had found out when it saved; what it knows itself stays.

    Args:
        manifests: of the training's checkpoints, the newest first.
    """
    told = [body.get("found") or {} for body in manifests]
    for name in FOUND_FILES:
        there = [found[name] for found in told if name in found]
        path = folder / name
        if name == LEDGER_FILE:  # which only grows
            entries = len(read_json(path)["entries"]) if path.exists() else 0
            there = [body for body in there if len(body["entries"]) > entries]
            there.sort(key=lambda body: -len(body["entries"]))
        elif path.exists():
            continue
        if there:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, there[0])


def newest_first(
    folder: Path, in_store: Iterable[Mapping[str, Any]], identity: Mapping[str, str]
) -> list[Mapping[str, Any]]:
    """The manifests of a training's checkpoints, in a folder and in a store, as far as they are one training's.

    Args:
        identity: what a checkpoint must share with the training, by name.
    """
    found: list[Mapping[str, Any]] = list(in_store)
    for place in manifest.finished(folder).values():
        with suppress(DataError, CheckpointError):
            found.append(manifest.read_manifest(place))
    own = [body for body in found if identity.items() <= body.get("identity", {}).items()]
    return sorted(own, key=lambda body: -body["step"])


def _best(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a manifest says of the best weights; None where none are in the checkpoint."""
    return next((entry for entry in body["files"] if entry["file"] == BEST_FILE), None)
