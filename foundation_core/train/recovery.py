"""A step that fails: done again, left out, or gone back from; what happens is decided before the optimizer moves.

    not finite, or a leap --again--> fine: the machine erred, and the result is as if it had not
                          --again--> still: rewind | skip | stop
    memory full           --halve the micro-batches--> the same gradient; in a validation the same scores

Every rank decides alike, as all that it decides by is a sum over all ranks or a file that all of them read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn, Protocol, TypeVar

import torch

from foundation_core.data.loading.loader import Batch
from foundation_core.errors import DeviceMemoryError, DivergedError, SetupError, SpikeError
from foundation_core.events import EventLog
from foundation_core.objectives.base import Objective
from foundation_core.specs.recovery import RecoverySpec
from foundation_core.train.blame import Blame, leap_bound
from foundation_core.train.engine import Engine
from foundation_core.train.ledger import Entry, Ledger
from foundation_core.train.step import StepReport, train_step

SCORED_ROWS = 16
"""Rows of one forward pass of a validation, while memory was not found to have room for fewer."""
_TRANSIENT, _PERSISTENT, _SPIKE, _MEMORY = "transient_nan", "persistent_nan", "loss_spike", "device_memory"
_HOST_ALLOCATOR = "DefaultCPUAllocator"
"""Who speaks in torch's message when the host refuses memory: a plain RuntimeError, where CUDA has a class for it."""

Scores = TypeVar("Scores")


class Batches(Protocol):
    """Gives this rank's micro-batches of any step."""

    def micro_batches(self, step: int) -> list[Batch]:
        """The micro-batches of optimizer step `step`, from 0."""


def is_memory_full(error: Exception) -> bool:
    """Whether an error says that a device, or the host where it is the device, refused memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return type(error) is RuntimeError and _HOST_ALLOCATOR in str(error) and "memory" in str(error)


class RewindError(Exception):
    """Documents were found and written down: the training is to be begun anew, and goes on from before they were read.

    Args:
        seconds: from the failure until it is raised.
    """

    def __init__(self, entry: Entry, seconds: float) -> None:
        super().__init__(f"{entry.failure} in step {entry.step + 1}: {', '.join(entry.documents)}")
        self.entry, self.seconds = entry, seconds


@dataclass
class Faults:
    """What a training has been through: part of its state, so that it decides alike after an interruption.

    Args:
        recomputed: steps that were fine when they were computed again.
        skipped: steps that were left out, from 0.
        losses: the last ones, of one label, as far as leaps are looked for.
        quarantines: entries of the ledger that it knows.
    """

    recomputed: int = 0
    skipped: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    quarantines: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return asdict(self)


class Recovery:
    """Does steps, and what has to be done when one fails.

    Args:
        faults: is changed.
        begins: told of each try, as of each step: who watches would take a long search for a hang.
        ledger: None where documents have no names: who would rewind stops.
    """

    def __init__(
        self,
        engine: Engine,
        objective: Objective,
        batches: Batches,
        spec: RecoverySpec,
        events: EventLog,
        faults: Faults,
        begins: Callable[[str, int], None],
        ledger: Ledger | None = None,
    ) -> None:
        self.engine, self.objective, self.batches, self.spec = engine, objective, batches, spec
        self.events, self.faults, self.begins, self.ledger = events, faults, begins, ledger
        self.micro_batch_rows = ledger.least_micro_batch() if ledger else 0
        faults.quarantines = len(ledger.entries) if ledger else 0

    def step(self, number: int, lr: float, seed: int, best_step: int = 0) -> StepReport | None:
        """Do a step; None if its samples were left out.

        Args:
            number: of the step, from 0.
            best_step: steps behind the best weights so far.

        Raises:
            DivergedError: it cannot be done, and the policy or a budget says that training ends.
            RewindError: documents were found; whoever built the engine builds it anew.
            SetupError: the device has no memory for a single row.
            DeviceMemoryError: one device of several is full; all start again, with smaller micro-batches.
        """
        batches, began, was_full = self.batches.micro_batches(number), time.perf_counter(), False
        failures: list[DivergedError] = []
        while True:
            self.begins("step", number + 1)
            try:
                report = train_step(self.engine, self.objective, self._split(batches), lr, seed, self._most_loss())
            except DivergedError as error:
                if len(failures) >= self.spec.recomputations:
                    self._give_up(number, error, batches, seed, best_step, began)
                    if was_full:
                        self._recovered(_MEMORY, number, began)
                    return None
                failures.append(error.with_traceback(None))  # whose frames hold the step's tensors
            except (RuntimeError, MemoryError) as error:
                if not is_memory_full(error):
                    raise
                was_full = True
                self._halve(number, max(len(batch["sample"]) for batch in batches), error)
            else:
                if failures:
                    self._tell_transient(number, failures, began)
                if was_full:
                    self._recovered(_MEMORY, number, began)
                if failures:
                    self._count_recomputed()
                if self.spec.spike != "off":
                    self.faults.losses = [*self.faults.losses, report.loss][-self.spec.spike_window_steps :]
                return report

    def validation(self, validate: Callable[[int], Scores], rows: int, number: int) -> Scores:
        """What a validation finds, in forward passes of as many rows as memory has room for.

        Args:
            validate: is given the most rows of a forward pass.
            rows: of the validation that fall to this rank; all at once, if the objective needs them in one piece.
            number: of the step that it comes behind, from 0.

        Raises:
            SetupError: the device has no memory for a single row.
            DeviceMemoryError: as of `step`.
        """
        began, was_full = time.perf_counter(), False
        most = min(SCORED_ROWS, rows) if self.objective.decomposable else rows
        while True:
            self.begins("validation", number + 1)
            try:
                scores = validate(min(self.micro_batch_rows or most, most))
            except (RuntimeError, MemoryError) as error:
                if not is_memory_full(error):
                    raise
                was_full = True
                self._halve(number, most, error, validates=True)
            else:
                if was_full:
                    self._recovered(_MEMORY, number, began)
                return scores

    def _tell_transient(self, number: int, failures: Sequence[DivergedError], began: float) -> None:
        """A step that is fine now failed before: only now it is known that no document did it."""
        last = failures[-1]
        fault = _SPIKE if isinstance(last, SpikeError) else _TRANSIENT
        left = self.spec.most_recomputed_steps - self.faults.recomputed
        self._tell(fault, number, len(failures), left, last)
        self._recovered(fault, number, began)

    def _recovered(self, failure: str, number: int, began: float) -> None:
        self.events.write("recovered", failure=failure, step=number + 1, seconds=time.perf_counter() - began)

    def _most_loss(self) -> float:
        if self.spec.spike == "off" or len(self.faults.losses) < self.spec.spike_window_steps:
            return math.inf
        return leap_bound(self.faults.losses, self.spec.spike_deviations)

    def _count_recomputed(self) -> None:
        """A step was fine when it was computed again: the machine erred."""
        self.faults.recomputed += 1
        if self.faults.recomputed > self.spec.most_recomputed_steps:
            raise DivergedError(
                f"{self.faults.recomputed} steps were finite only when they were computed again",
                allowed=f"{self.spec.most_recomputed_steps} (pretrain.recovery.most_recomputed_steps)",
                fix="look for the machine that errs: the events say when",
            )

    def _give_up(
        self, number: int, error: DivergedError, batches: Sequence[Batch], seed: int, best_step: int, began: float
    ) -> None:
        """What the policy says of a step that failed each time."""
        leap = isinstance(error, SpikeError)
        failure, policy = (_SPIKE, self.spec.spike) if leap else (_PERSISTENT, self.spec.not_finite)
        if policy == "stop" or (policy == "rewind" and self.ledger is None):
            self._tell(failure, number, 1, 0, error)
            raise error
        if policy == "rewind":
            assert self.ledger is not None, "asked for above"
            blame = Blame(self.engine, self.objective, self._split(batches), number, seed, self.ledger, self.begins)
            documents = blame.of_leap(self.spec.spike_deviations) if leap else blame.of_not_finite()
            if documents:
                entry = self.ledger.entry(failure, number, documents, best_step)
                self._rewind(entry, error, began)
            if not leap:  # not even an empty batch is finite: no document is to blame, and the moments were touched
                self._tell(failure, number, 1, 0, error)
                raise error
        self._skip(failure, number, error, began)

    def _rewind(self, entry: Entry, error: DivergedError, began: float) -> NoReturn:
        """Write down what was found, and have the training begun anew."""
        assert self.ledger is not None, "it named the documents"
        known, names = len(self.ledger.documents), ", ".join(entry.documents)
        left = self.spec.most_quarantined_documents - known - len(entry.documents)
        facts = {"documents": list(entry.documents), "rewind_to": entry.rewind_to}
        self._tell(entry.failure, entry.step, 1, left, error, f", by {names}", **facts)
        if left < 0:
            raise DivergedError(
                f"{error.found}, by {names}, and {known} documents are hidden already",
                allowed=f"{self.spec.most_quarantined_documents} (pretrain.recovery.most_quarantined_documents)",
                fix="look at the documents, then name them in pretrain.quarantined or allow more",
            ) from error
        if self.engine.rank == 0:
            self.ledger.commit(entry)
        self.engine.barrier()
        raise RewindError(entry, time.perf_counter() - began) from error

    def _skip(self, failure: str, number: int, error: DivergedError, began: float) -> None:
        """Leave out a step's samples; they are counted in the state."""
        self.faults.skipped.append(number)
        left = self.spec.most_skipped_steps - len(self.faults.skipped)
        self._tell(failure, number, 1, left, error, ": its samples are left out")
        if left < 0:
            raise DivergedError(
                f"{error.found}, and {len(self.faults.skipped) - 1} steps were left out already",
                allowed=f"{self.spec.most_skipped_steps} (pretrain.recovery.most_skipped_steps)",
                fix=error.fix,
            ) from error
        self._recovered(failure, number, began)

    def _halve(self, number: int, most_rows: int, error: Exception, *, validates: bool = False) -> None:
        """Smaller micro-batches from now on; at once where this rank is alone, else after a new start of all.

        Several ranks may be in an exchange that the one whose memory is full never comes to, so they cannot vote.

        Args:
            most_rows: of a forward pass of what was being done.
        """
        rows = min(self.micro_batch_rows or most_rows, most_rows)
        full = f"full with {rows} rows {'of a validation' if validates else 'a micro-batch'}"
        if self.engine.world == 1:
            self.engine.discard()
        why = self._cannot_halve(rows)
        if why:
            self._tell(_MEMORY, number, 1, 0, error)
            fewer = "lower --pretrain.validation_rows, or " if validates and not self.objective.decomposable else ""
            raise SetupError(
                f"the device's memory is {full}, {why}",
                fix=f"{fewer}use a smaller model or context_tokens, more workers, or a larger device",
            ) from error
        self.micro_batch_rows = rows // 2
        left = int(math.log2(self.micro_batch_rows))
        self._tell(_MEMORY, number, 1, left, error, f": micro-batches of {self.micro_batch_rows} rows from now on")
        if self.ledger is not None:
            with suppress(FileNotFoundError):  # another rank is full too, and wrote the same
                self.ledger.keep_micro_batch(self.micro_batch_rows)
        if self.engine.world > 1:
            raise DeviceMemoryError(
                f"the memory of rank {self.engine.rank} is {full}",
                fix=f"start again: it goes on with {self.micro_batch_rows}",
            ) from error
        torch.cuda.empty_cache()

    def _cannot_halve(self, rows: int) -> str:
        if not self.objective.decomposable:
            return "and the objective needs its batch in one piece"
        if not self.spec.halve_micro_batch:
            return "and pretrain.recovery.halve_micro_batch is off"
        return "" if rows > 1 else "and fewer there cannot be"

    def _split(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """The micro-batches, in parts where memory has room for fewer rows."""
        if not self.micro_batch_rows:
            return batches
        rows = self.micro_batch_rows
        parts = [{name: torch.split(values, rows) for name, values in batch.items()} for batch in batches]
        return [dict(zip(part, some, strict=True)) for part in parts for some in zip(*part.values(), strict=True)]

    def _tell(
        self, failure: str, number: int, attempt: int, left: int, error: Exception, then: str = "", **facts: Any
    ) -> None:
        found = error.found if isinstance(error, DivergedError) else "the device's memory is full"
        what = f"{found}{then}"
        self.events.write(
            "failure", failure=failure, step=number + 1, attempt=attempt, budget_left=left, what=what, **facts
        )
