"""Checkpoints: saved beside the training, and there only when every rank's file is on disk and hashed.

    save      copy the state (the training waits for that alone) -> a thread writes step-8.partial/rank-1
              rank 0 gives the best weights so far a second name there, and the manifest what was found out
    votes     each step: is everybody's part on disk?
    commit    rank 0, a thread: manifest.json, then the folder gets its name step-8, then old ones go
    restore   the newest one that is whole and gives the outputs that were saved with it

A kill at any moment leaves the checkpoint before or the new one. What fails in a thread is raised at the next step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from xxhash import xxh3_128_hexdigest

from foundation_core.data.stores.depot import Depot
from foundation_core.errors import CheckpointError, DataError, DivergedError, ElsewhereError
from foundation_core.events import EventLog, SilentLog
from foundation_core.files import PARTIAL, committed, read_json, write_json
from foundation_core.train import manifest
from foundation_core.train.beside import Beside
from foundation_core.train.collective import of_rank_0, together
from foundation_core.train.copies import StoreCopies
from foundation_core.train.engine import Engine
from foundation_core.train.example import OutputCheck, to_bytes
from foundation_core.train.manifest import (
    BEST_FILE,
    HASH,
    MANIFEST_FILE,
    MANIFEST_VERSION,
    OUTPUTS_FILE,
    STATE_FILE,
    folder_name,
)
from foundation_core.train.ownership import Ownership
from foundation_core.train.recovery import RewindError
from foundation_core.train.restoring import Restorer
from foundation_core.train.retention import Retention, kept
from foundation_core.train.staging import Staged, Staging
from foundation_core.train.votes import agree
from foundation_core.train.writer import Background, fsync, write_hashed

_PART_FILE = "rank-{rank:05d}.json"
"""What a rank says of its files until they are in the manifest."""


@dataclass(frozen=True)
class _Save:
    """A checkpoint that is being saved.

    Args:
        files: those of this rank, by their names.
    """

    step: int
    partial: Path
    final: Path
    body: dict[str, Any]
    files: tuple[str, ...]


class Checkpoints:
    """The checkpoints of one training, newest last; to be entered before use, by every rank.

    Args:
        identity: what must be equal for a checkpoint to be continued, by name (the action key, the order's digest).
        policy: what stays.
        check: asks the model that was read what the saved one was asked. None: files alone are compared.
        copies: a store that they are copied to, and read from where this machine has none.
        beside: what travels with them. None: the state alone.

    `step` is that of the last one that was saved or restored; `when_restored` is told it on every rank, once the
    engine holds what the training begins with.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        identity: Mapping[str, str],
        policy: Retention,
        events: EventLog | None = None,
        check: OutputCheck | None = None,
        copies: StoreCopies | None = None,
        beside: Beside | None = None,
    ) -> None:
        self.folder, self.engine, self.identity, self.policy = folder, engine, dict(identity), policy
        self.events, self.check, self.copies, self.beside = events or SilentLog(), check, copies, beside
        self.step, self.when_restored = 0, _told_nobody
        self.ownership = Ownership(Depot(folder))
        self._token = 0
        self._staging = Staging()
        self._background = Background("checkpoint")
        self._save: _Save | None = None
        self._part: Future[bytes | None] | None = None
        self._committed: Future[bytes] | None = None
        self._settled = True

    def __enter__(self) -> Self:
        """Become the folder's only writer; a collective call.

        Raises:
            SecondWriterError: another process is, and lives.
        """
        try:
            together(self.engine, self._open)
        except BaseException:
            self._close()
            raise
        mine = int(self.ownership.owner[:12], 16) if self.engine.rank == 0 else 0
        self._token = of_rank_0(self.engine, mine)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads once they wrote what they were given, and let others write.

        A rank that leaves with an error cannot ask the others for a commit, unless all leave with the same one.
        """
        try:
            if isinstance(error, (DivergedError, RewindError)):
                self.finish()
        finally:
            self._close()

    def save(self, step: int, state: Mapping[str, Any], *, loss: float | None = None, ephemeral: bool = False) -> None:
        """Begin a checkpoint of all ranks; a collective call that waits for the one before, and copies the state.

        Args:
            step: optimizer steps done.
            state: what the loop needs beside the engine's state (JSON values); `seconds` of training, if known.
            loss: of a validation at this step: what the best ones are chosen by.
            ephemeral: it is of no use once a regular one is later.

        Raises:
            DiskFullError: there was no room for the one before; the checkpoints that were there still are.
        """
        self.finish()
        partial = self.folder / f"{folder_name(step)}.{self._token:012x}{PARTIAL}"
        body = {
            "version": MANIFEST_VERSION,
            "step": step,
            "world": self.engine.world,
            "identity": self.identity,
            "state": dict(state),
            "seconds": float(state.get("seconds", 0.0)),
            "loss": loss if loss is not None and isfinite(loss) else None,
            "ephemeral": ephemeral,
            "example": self.check.circumstances() if self.check else None,
            "found": self.beside.found() if self.beside and self.engine.rank == 0 else {},
        }
        best = self.beside.keep(partial) if self.beside and self.engine.rank == 0 and state.get("best_step") else list
        staged = self._staging.copy(self.engine.fragments)
        outputs = to_bytes(self.check.outputs()) if self.check else b""
        self._save = save = _Save(step, partial, self.folder / folder_name(step), body, self._names(partial))
        self._part = self._background.start(lambda: self._write_part(save, staged, outputs, best))
        self._settled, self.step = False, step

    def votes(self) -> dict[str, float]:
        """What the ranks must agree on each step: whether a rank's part is not on disk yet, and whether one failed."""
        unsaved = self._part is not None and not self._part.done()
        votes = {"unsaved": float(unsaved), "save_failed": float(self._error() is not None)}
        return votes | (self.copies.votes() if self.copies is not None else {})

    def hear(self, sums: Mapping[str, float]) -> None:
        """Go on as the ranks agreed: commit what is on every rank's disk.

        Raises:
            FoundationError: a part could not be written, for the reason that the thread had; or the store is another's.
        """
        if sums["save_failed"]:
            self._raise_what_failed()
        if self.copies is not None:  # first: the sums say nothing of an upload that begins now
            self.copies.hear(sums)
        if self._part is not None and not sums["unsaved"]:
            save, part, self._save, self._part = self._save, self._part, None, None
            assert save is not None
            if self.engine.rank == 0:
                self._committed = self._background.start(lambda: part.result() or self._commit(save))
            if self.copies is not None:
                self.copies.begin(save.step, self._opened(save), self._committed)

    def finish(self, *, everywhere: bool = False) -> None:
        """Return when what was saved is committed on disk; a collective call.

        Args:
            everywhere: wait for the store too, until it has it or had its time.

        Raises:
            FoundationError: it could not be.
        """
        if not self._settled:
            self._finish_on_disk()
        if everywhere and self.copies is not None:
            with self.copies.last():
                while self.copies.busy:
                    self.copies.wait()
                    self._agree()
                self.copies.wait_for_commit()
            self._agree()  # or the last commit would find a second writer, and nobody hear of it

    def _finish_on_disk(self) -> None:
        wait(filter(None, [self._part]))
        self._agree()
        wait(filter(None, [self._committed]))  # which rank 0 has begun by now
        self._agree()
        self._settled = True

    def _write_part(
        self, save: _Save, staged: Staged, outputs: bytes, best: Callable[[], list[dict[str, Any]]]
    ) -> bytes | None:
        """Write this rank's files; the manifest's bytes if there is no other rank, and so the checkpoint is whole."""
        rank, files = self.engine.rank, best()
        save.partial.mkdir(parents=True, exist_ok=True)
        path = save.partial / STATE_FILE.format(rank=rank)
        files.append({"file": path.name, "bytes": staged.size, HASH: write_hashed(path, staged)})
        if rank == 0 and outputs:
            with committed(save.partial / OUTPUTS_FILE) as sink:
                sink.write(outputs)
            files.append({"file": OUTPUTS_FILE, "bytes": len(outputs), HASH: xxh3_128_hexdigest(outputs)})
        if self.engine.world == 1:
            return self._commit(save, files)
        write_json(save.partial / _PART_FILE.format(rank=rank), files)
        return None

    def _commit(self, save: _Save, files: list[dict[str, Any]] | None = None) -> bytes:
        """Make the checkpoint count, and let old ones go; the manifest's bytes."""
        if files is None:
            parts = [save.partial / _PART_FILE.format(rank=rank) for rank in range(self.engine.world)]
            files = [entry for part in parts for entry in read_json(part)]
            for part in parts:
                part.unlink()
        write_json(save.partial / MANIFEST_FILE, {**save.body, "files": files})
        body = (save.partial / MANIFEST_FILE).read_bytes()
        fsync(save.partial)
        self.ownership.check()
        manifest.replace(save.partial, save.final)
        fsync(self.folder)
        self._prune()
        return body

    def restore(self) -> tuple[int, dict[str, Any]] | None:
        """Load the newest checkpoint that is whole: (steps done, the loop's state), or None if there never was one.

        A damaged one is set aside, on disk and in the store, and the one before it is taken. A collective call.

        Raises:
            CheckpointError: none is whole, or they belong to another training or another version of this program.
        """
        self.finish()
        found = Restorer(
            self.folder, self.engine, self.identity, self.events, self.check, self.copies, self.beside
        ).restore()
        self.step = found[0] if found is not None else 0
        self.when_restored(self.step)
        return found

    def forget(self, allows: Callable[[int, Mapping[str, Any]], bool]) -> None:
        """Remove the checkpoints that may not be continued, on disk and in the store; a collective call.

        Args:
            allows: whether a checkpoint may be, by its steps and the loop's state.

        Raises:
            CheckpointError: `allows` refuses to say.
        """
        self.finish()
        together(self.engine, lambda: self._forget(allows))

    def _forget(self, allows: Callable[[int, Mapping[str, Any]], bool]) -> None:
        if self.engine.rank != 0:
            return
        for folder, body in self._readable().values():
            if not allows(body["step"], body["state"]):
                manifest.remove(folder)
        self._forget_damaged(allows)
        for step in self.copies.steps() if self.copies is not None else []:
            if self.copies is not None and not allows(step, self.copies.manifest(step).get("state", {})):
                self.copies.discard(step)

    def _forget_damaged(self, allows: Callable[[int, Mapping[str, Any]], bool]) -> None:
        """Give those that were set aside and may not be continued a name by which nobody asks for them back."""
        for left in self.folder.glob(f"step-*{manifest.DAMAGED}*"):
            step, state = manifest.step_of(left.name.partition(".")[0]), dict[str, Any]()
            with suppress(DataError, CheckpointError):
                state = manifest.read_manifest(left)["state"]
            if step is not None and not allows(step, state):
                os.replace(left, left.with_name(f"forgotten-{left.name}"))

    def _open(self) -> None:
        if self.engine.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.ownership.take()
            manifest.tidy(self.folder)
        if self.copies is not None:
            self.copies.open(self.engine.rank)

    def _close(self) -> None:
        self._background.close()
        if self.copies is not None:
            self.copies.close()
        if self.engine.rank == 0:
            self.ownership.release()

    def _opened(self, save: _Save) -> list[tuple[str, BinaryIO]]:
        """This rank's files, which rank 0 may be renaming now."""
        files: list[tuple[str, BinaryIO]] = []
        for name in save.files:
            try:
                file = open(save.partial / name, "rb")  # noqa: SIM115  # whoever uploads it closes it
            except FileNotFoundError:
                file = open(save.final / name, "rb")  # noqa: SIM115  # the same
            files.append((name, file))
        return files

    def _names(self, partial: Path) -> tuple[str, ...]:
        """The files that this rank has in a checkpoint that begins."""
        names = [STATE_FILE.format(rank=self.engine.rank)]
        if self.engine.rank == 0:
            names += [OUTPUTS_FILE] if self.check is not None else []
            names += [BEST_FILE] if (partial / BEST_FILE).exists() else []
        return tuple(names)

    def _prune(self) -> None:
        there = self._readable()
        saved = [manifest.saved_of(body) for _, body in there.values()]
        for step in there.keys() - kept(saved, self.policy):
            manifest.remove(there[step][0])

    def _readable(self) -> dict[int, tuple[Path, dict[str, Any]]]:
        """The checkpoints on disk with their manifests; what cannot be read is no reason to lose another."""
        found = {}
        for step, folder in manifest.finished(self.folder).items():
            with suppress(DataError, CheckpointError):
                found[step] = folder, manifest.read_manifest(folder)
        return found

    def _error(self) -> BaseException | None:
        """What a thread of this rank failed with."""
        for future in (self._part, self._committed):
            if future is not None and future.done() and future.exception() is not None:
                return future.exception()
        return self.copies.lost if self.copies is not None else None

    def _raise_what_failed(self) -> None:
        error, step = self._error(), f"of step {self._save.step}" if self._save else "before"
        self._part = self._committed = self._save = None
        self._settled = True
        if error is not None:
            raise error
        raise ElsewhereError(f"another worker failed with the checkpoint {step}: its own error says at what")

    def _agree(self) -> None:
        self.hear(agree(self.engine, self.votes(), self.engine.device))


def _told_nobody(step: int) -> None:
    """Nobody asked to be told."""
