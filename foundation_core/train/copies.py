"""Checkpoints in a store: each rank uploads its own files beside the training, and the manifest is the last object.

    step-8/ on disk  --every rank, a thread-->  s3://bucket/run/step-8/rank-00000.safetensors ...
    all ranks say so in the step's votes     -->  rank 0: step-8/manifest.json, then others are pruned

A store that is away stops nothing: an upload is tried again until the patience is over, its manifest like its files;
the checkpoint on disk stays. What could not be removed is removed with the next checkpoint that is committed.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO, TypeVar

from foundation_core.data.stores.depot import Depot
from foundation_core.errors import SecondWriterError, TransientError
from foundation_core.events import EventLog
from foundation_core.specs.checkpoints import CheckpointSpec
from foundation_core.train.manifest import MANIFEST_FILE, folder_name, saved_of, step_of
from foundation_core.train.ownership import Ownership
from foundation_core.train.retention import Retention, Saved, kept
from foundation_core.train.writer import Background

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 60.0

Answer = TypeVar("Answer")


@dataclass
class _Upload:
    """One checkpoint on its way.

    Args:
        files: this rank's, open: they can be read to their end, whatever happens to their names.
        manifest: the manifest's bytes, once it is on disk; of use to rank 0.
    """

    step: int
    files: Sequence[tuple[str, BinaryIO]]
    manifest: Future[bytes] | None
    done: Future[bool] | None = None

    def close(self) -> None:
        for _, file in self.files:
            file.close()


@dataclass
class _Outage:
    """A time in which the store did not answer."""

    began: float = field(default_factory=time.monotonic)
    tries: int = 0


class StoreCopies:
    """The checkpoints of one training in a store.

    Args:
        patience_seconds: how long the store may be away before an upload is given up.

    `lost` is, on rank 0, what says that another process writes there now: the training is that one's.
    """

    def __init__(
        self,
        depot: Depot,
        policy: Retention,
        events: EventLog,
        patience_seconds: float = 600.0,
        ownership: Ownership | None = None,
    ) -> None:
        self.depot, self.policy, self.events, self.patience_seconds = depot, policy, events, patience_seconds
        self.ownership = ownership or Ownership(depot)
        self.rank = 0
        self._background = Background("checkpoint-store")
        self._active: _Upload | None = None
        self._next: _Upload | None = None
        self._committed: Future[None] | None = None
        self._known: dict[int, tuple[Saved, list[str]]] = {}
        self._leaving: dict[int, set[str]] = {}
        self._ended, self._deadline = threading.Event(), math.inf
        self.lost: SecondWriterError | None = None

    def open(self, rank: int) -> None:
        """Become the store's writer, on rank 0, and see what it has.

        Raises:
            TransientError: it does not answer, or another process writes there.
        """
        self.rank = rank
        if rank == 0:
            self._patiently("be opened", self.ownership.take)
            self._patiently("be listed", self._look)

    def close(self) -> None:
        """Give up what is on its way, and let others write."""
        self._ended.set()
        self._background.close()
        for upload in (self._active, self._next):
            if upload is not None:
                upload.close()
        if self.rank == 0:
            self.ownership.release()

    def steps(self) -> list[int]:
        """The steps of the checkpoints that are there, as rank 0 knows them."""
        return sorted(self._known)

    def manifests(self) -> list[dict[str, Any]]:
        """Of all checkpoints that are there, the oldest first; it may be asked before the store is opened.

        Raises:
            TransientError: it does not answer.
        """
        found = self._patiently("be listed", self._files)
        there = (self.manifest(step) for step in sorted(found) if MANIFEST_FILE in found[step])
        return [body for body in there if body]

    def begin(self, step: int, files: Sequence[tuple[str, BinaryIO]], manifest: Future[bytes] | None) -> None:
        """Upload a checkpoint once those before it are done; one that still waits is left out for it."""
        upload = _Upload(step, files, manifest)
        if self._active is None:
            self._start(upload)
            return
        if self._next is not None:
            self._next.close()
        self._next = upload

    def votes(self) -> dict[str, float]:
        """What the ranks must agree on: whether any is not done, and whether any gave up."""
        done = None if self._active is None else self._active.done
        over = done is None or done.done()
        failed = done is not None and over and (done.exception() is not None or not done.result())
        return {"unstored": float(not over), "unstorable": float(failed)}

    def hear(self, sums: Mapping[str, float]) -> None:
        """Go on as the ranks agreed."""
        if self._active is None or sums["unstored"]:
            return
        upload, self._active = self._active, None
        upload.close()
        if self.rank == 0 and not sums["unstorable"]:
            self._committed = self._background.start(lambda: self._commit(upload))
        if self._next is not None:
            upload, self._next = self._next, None
            self._start(upload)

    @property
    def busy(self) -> bool:
        """Whether something is on its way, on every rank alike."""
        return self._active is not None

    def wait(self) -> None:
        """Return when this rank's part of the upload is over."""
        if self._active is not None and self._active.done is not None:
            wait([self._active.done])

    def wait_for_commit(self) -> None:
        """Return when what all ranks uploaded counts."""
        if self._committed is not None:
            wait([self._committed])

    @contextmanager
    def last(self) -> Iterator[None]:
        """Within, one patience is all that there is: for what is on its way, what waits behind it, and the commit."""
        self._deadline = time.monotonic() + self.patience_seconds
        try:
            yield
        finally:
            self._deadline = math.inf

    def manifest(self, step: int) -> dict[str, Any]:
        """The manifest of a checkpoint in the store; {} if it is none."""
        try:
            body = json.loads(self._patiently("be read", lambda: self.depot.read_bytes(_name(step, MANIFEST_FILE))))
        except (FileNotFoundError, ValueError):
            return {}
        return body if isinstance(body, dict) else {}

    def fetch(self, step: int, name: str, path: Any) -> None:
        """Bring a file of a checkpoint; one that is not there stays missing."""
        try:
            self._patiently("be read", lambda: self.depot.fetch(_name(step, name), path))
        except FileNotFoundError:
            path.unlink(missing_ok=True)

    def discard(self, step: int) -> None:
        """Let a checkpoint in the store count no more, on rank 0."""
        if self._known.pop(step, None) is not None:
            self._patiently("be changed", lambda: self.depot.remove(_name(step, MANIFEST_FILE)))

    def _start(self, upload: _Upload) -> None:
        self._active = upload
        upload.done = self._background.start(lambda: self._upload(upload))

    def _upload(self, upload: _Upload) -> bool:
        """Put this rank's files, each again until the patience is over; whether all are there."""
        return all(self._put(upload.step, name, file) for name, file in upload.files)

    def _put(self, step: int, name: str, file: BinaryIO) -> bool:
        outage: _Outage | None = None
        while not self._ended.is_set():
            file.seek(0)
            try:
                self.depot.put(_name(step, name), file)
            except OSError as error:
                outage = outage or _Outage()
                if not self._wait_for_store(outage, step, error):
                    return False
            else:
                if outage is not None:
                    seconds = round(time.monotonic() - outage.began, 3)
                    self.events.write("recovered", failure="copies_away", step=step, seconds=seconds)
                return True
        return False

    def _wait_for_store(self, outage: _Outage, step: int, error: OSError) -> bool:
        """Say once that the store is away, and wait for the next try; False if there is no patience left."""
        left = self._left(outage.began)
        if outage.tries == 0:
            self.events.write(
                "failure", failure="copies_away", step=step, attempt=1, budget_left=round(max(0.0, left), 3),
                what=f"{self.depot} did not take the checkpoint of step {step}: {error}; it is on disk",
            )  # fmt: skip
        if left <= 0:
            self.events.say(f"the checkpoint of step {step} did not get into {self.depot}; it stays on disk")
            return False
        self._ended.wait(min(left, _LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**outage.tries))
        outage.tries += 1
        return True

    def _left(self, began: float) -> float:
        """Seconds of patience that are left of what did not answer for the first time then."""
        return min(began + self.patience_seconds, self._deadline) - time.monotonic()

    def _commit(self, upload: _Upload) -> None:
        """Let a checkpoint count whose every file is there, and prune."""
        assert upload.manifest is not None
        body = upload.manifest.result()
        try:
            self._patiently("be looked at", self.ownership.check)
        except SecondWriterError as error:
            self.lost = error
            return
        except TransientError as error:
            self.events.say(f"the checkpoint of step {upload.step} was not committed in {self.depot}: {error.found}")
            return
        if self._put(upload.step, MANIFEST_FILE, BytesIO(body)):
            self._known[upload.step] = _, names = _known(json.loads(body))
            if upload.step in self._leaving:  # an upload that broke off left files by names that count from now on
                self._leaving[upload.step] -= {MANIFEST_FILE, *names}
            self._prune()

    def _prune(self) -> None:
        """Remove what the policy lets go, manifests first, and what an earlier try or training left lying."""
        newest, staying = max(self._known), kept((saved for saved, _ in self._known.values()), self.policy)
        for step in self._known.keys() - staying:
            _, names = self._known.pop(step)
            self._leaving.setdefault(step, set()).update({MANIFEST_FILE, *names})
        # A later step may be on its way again, by any rank; an earlier one that is not known is of no use to anybody.
        for step in [step for step in self._leaving if step < newest]:
            try:
                for name in sorted(self._leaving[step], key=lambda name: name != MANIFEST_FILE):
                    self.depot.remove(_name(step, name))
                del self._leaving[step]
            except OSError:  # the store is away: it is tried again with the next
                return

    def _files(self) -> dict[int, set[str]]:
        """The files of each step."""
        found: dict[int, set[str]] = {}
        for name in self.depot.names():
            folder, _, file = name.partition("/")
            if file and (step := step_of(folder)) is not None:
                found.setdefault(step, set()).add(file)
        return found

    def _look(self) -> None:
        """Read the manifests that are there; files without one are left of an upload or a removal that broke off."""
        for step, names in self._files().items():
            if MANIFEST_FILE in names and (body := self.manifest(step)):
                self._known[step] = _known(body)
            else:
                self._leaving[step] = names

    def _patiently(self, what: str, ask: Callable[[], Answer]) -> Answer:
        """What the store answers, asked again for a while if it does not; FileNotFoundError is an answer."""
        began, pause = time.monotonic(), _FIRST_WAIT_SECONDS
        while True:
            try:
                return ask()
            except FileNotFoundError:
                raise
            except OSError as error:
                if self._ended.is_set() or pause > self._left(began):
                    raise TransientError(
                        f"{self.depot} could not {what}: {error}",
                        fix="see that the store answers and that this machine has its key; then run the command again",
                    ) from error
            self._ended.wait(pause)
            pause = min(2 * pause, _LONGEST_WAIT_SECONDS)


def store_copies(spec: CheckpointSpec, policy: Retention, events: EventLog) -> StoreCopies | None:
    """The copies that a spec asks for; None if there is no store.

    Raises:
        ConfigError: there is no such store, or it cannot be written.
    """
    if spec.store is None:
        return None
    return StoreCopies(Depot.at(spec.store), policy, events, 60 * spec.store_patience_minutes)


def _name(step: int, file: str) -> str:
    return f"{folder_name(step)}/{file}"


def _known(body: Mapping[str, Any]) -> tuple[Saved, list[str]]:
    return saved_of(body), [entry["file"] for entry in body["files"]]
