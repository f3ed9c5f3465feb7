"""The next steps' batches, made beside the training: the same batches in the same order, a little earlier."""

from __future__ import annotations

from contextlib import suppress
from queue import Empty, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Protocol, Self

from foundation_core.data.loading.loader import Batch


class Steps(Protocol):
    """Gives the micro-batches of any step."""

    def micro_batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step."""


class Prefetched:
    """Makes batches in a thread of its own and has the next steps ready. It has no state that a checkpoint would need.

    What torch does to a batch leaves Python's lock to the training; errors come up where their step is asked for.

    Args:
        steps: what makes them; nobody else may call it meanwhile.
        ahead: steps that are ready at the most. 0: each is made when it is asked for, without a thread.
    """

    def __init__(self, steps: Steps, ahead: int) -> None:
        self.steps, self.ahead = steps, ahead
        self._worker: _Worker | None = None
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def micro_batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step; those of the next one are cheapest, any other one begins anew."""
        if not self.ahead:
            return self.steps.micro_batches(step)
        if self._worker is None or step != self._next:
            self.close()
            self._worker = _Worker(self.steps, step, self.ahead)
        made = self._worker.ready.get()
        if isinstance(made, Exception):
            self.close()
            raise made
        self._next = step + 1
        return made

    def close(self) -> None:
        """End the thread; what it had ready is dropped."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class _Worker:
    """A thread that makes one step after the other and waits while enough are ready."""

    def __init__(self, steps: Steps, first: int, ahead: int) -> None:
        self.ready: Queue[list[Batch] | Exception] = Queue(maxsize=ahead)
        self._ended = Event()
        self._thread = Thread(target=self._work, args=(steps, first), name="prefetch", daemon=True)
        self._thread.start()

    def _work(self, steps: Steps, step: int) -> None:
        try:
            while not self._ended.is_set():
                self.ready.put(steps.micro_batches(step))
                step += 1
        except Exception as error:  # it is raised where the step is asked for
            self.ready.put(error)

    def end(self) -> None:
        """Return when the thread is gone."""
        self._ended.set()
        while self._thread.is_alive():  # it may wait for room
            with suppress(Empty):
                self.ready.get_nowait()
            self._thread.join(timeout=0.01)
