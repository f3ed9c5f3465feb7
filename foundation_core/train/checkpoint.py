"""Checkpoints: a folder that appears under its name only when every rank's files are in it and hashed.

step-00000050.partial/  every rank writes its part    (barrier)
step-00000050.partial/manifest.json                   rank 0: step, state, sha256 of every file
step-00000050/                                        rank 0 renames: now it exists
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foundation_core.errors import CheckpointError, DataError
from foundation_core.files import PARTIAL, disk_is_full, found_no_room, read_json, sha256_file, write_json
from foundation_core.train.engine import Engine
from foundation_core.train.fragments import StateFiles, write_fragments

MANIFEST_FILE = "manifest.json"
MANIFEST_VERSION = 2
_STATE_FILE = "rank-{rank}.safetensors"


class Checkpoints:
    """The checkpoints of one training, newest last.

    Args:
        identity: what must be equal for a checkpoint to be continued, by name (the action key, the order's digest).
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, engine: Engine, identity: Mapping[str, str], keep: int) -> None:
        self.folder, self.engine, self.identity, self.keep = folder, engine, dict(identity), keep

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint of all ranks; a collective call.

        Args:
            step: optimizer steps done.
            state: what the loop needs beside the engine's state (JSON values).

        Raises:
            SetupError: the disk is full; the checkpoints that were there still are.
        """
        final = self.folder / f"step-{step:08d}"
        partial = final.with_name(final.name + PARTIAL)
        if self.engine.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.engine.barrier()
        try:
            write_fragments(partial / _STATE_FILE.format(rank=self.engine.rank), self.engine.fragments())
            self.engine.barrier()
            if self.engine.rank == 0:
                self._commit(partial, final, step, state)
        except (OSError, RuntimeError) as error:
            if found_no_room(partial, error):
                raise disk_is_full(partial, error) from error
            raise
        self.engine.barrier()

    def _commit(self, partial: Path, final: Path, step: int, state: Mapping[str, Any]) -> None:
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        for path in files:
            _fsync(path)
        body = {
            "version": MANIFEST_VERSION,
            "step": step,
            "world": self.engine.world,
            "identity": self.identity,
            "state": dict(state),
            "files": [_entry(path, partial) for path in files],
        }
        write_json(partial / MANIFEST_FILE, body)
        _remove(final)
        os.replace(partial, final)
        _fsync(self.folder)
        for old in self._finished()[: -self.keep]:
            _remove(old)

    def forget(self, allows: Callable[[int, Mapping[str, Any]], bool]) -> None:
        """Remove the checkpoints that may not be continued; a collective call.

        Args:
            allows: whether a checkpoint may be, by its steps and the loop's state.
        """
        if self.engine.rank == 0:
            for folder in self._finished():
                try:
                    body = read_json(folder / MANIFEST_FILE)
                except DataError:  # `restore` says what is wrong with it
                    continue
                if not allows(body["step"], body["state"]):
                    _remove(folder)
        self.engine.barrier()

    def restore(self) -> tuple[int, dict[str, Any]] | None:
        """Load the newest checkpoint into the engine: (steps done, the loop's state), or None if there is none.

        What a killed writer left half done is removed.

        Raises:
            CheckpointError: a file was edited or truncated, or the checkpoint belongs to another training.
        """
        if self.engine.rank == 0:  # nobody saves before everybody is here
            for left in self.folder.glob(f"step-*{PARTIAL}"):
                shutil.rmtree(left)
        finished = self._finished()
        if not finished:
            return None
        body = verify(finished[-1])
        for name, expected in self.identity.items():
            if body["identity"].get(name) != expected:
                raise CheckpointError(
                    f"{finished[-1]} belongs to another training: its {name} is {body['identity'].get(name)}",
                    allowed=f"{name} {expected}",
                    fix="remove that folder to train anew",
                )
        self.engine.restore(StateFiles(finished[-1].glob(_STATE_FILE.format(rank="*"))))
        return body["step"], body["state"]

    def _finished(self) -> list[Path]:
        return sorted(p.parent for p in self.folder.glob(f"step-*/{MANIFEST_FILE}") if p.parent.suffix != PARTIAL)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose every file is as it was written.

    Raises:
        CheckpointError: the file that is not, named with both digests.
    """
    try:
        body: dict[str, Any] = read_json(folder / MANIFEST_FILE)
    except DataError as error:
        raise CheckpointError(error.found, fix=_go_back(folder)) from error
    if body["version"] > MANIFEST_VERSION:
        raise CheckpointError(
            f"{folder / MANIFEST_FILE} has version {body['version']}",
            allowed=f"versions up to {MANIFEST_VERSION}",
            fix="upgrade foundation-pipeline",
        )
    for entry in body["files"]:
        path = folder / entry["file"]
        found = sha256_file(path) if path.exists() else "no file"
        if found != entry["sha256"]:
            raise CheckpointError(
                f"{path} is not what was saved: sha256 {found}",
                allowed=f"sha256 {entry['sha256']}, {entry['bytes']} bytes",
                fix=_go_back(folder),
            )
    return body


def _go_back(folder: Path) -> str:
    return f"remove {folder}: training continues from the checkpoint before it"


def _remove(folder: Path) -> None:
    """Remove a checkpoint, the manifest first: there is no moment at which half of it counts."""
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    return {"file": str(path.relative_to(folder)), "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
