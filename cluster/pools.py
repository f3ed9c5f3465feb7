"""Pools: independent pieces of work side by side, on local processes or on a Ray cluster, behind one method.

    pieces --as many as there is room for--> processes --> results, in the order in which they finish
       ^------- the one in hand, when its process is gone --'

A piece is taken from its iterable when there is room for it, so what is held does not grow with their number. A process
that dies costs the piece that it had in hand, which another one does again (`losses`); the others do not notice.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple, TypeVar

from cluster.failures import kernel_kills
from cluster.losses import NO_MEMORY, Cause, Loss, Task, Tasks
from foundation_core.errors import FoundationError, TransientError, as_foundation_error
from foundation_core.specs import LOCAL_WORKERS

Piece = TypeVar("Piece")
Done = TypeVar("Done")
Say = Callable[[str], None]

_LEAVE_SECONDS = 5.0
"""How long the exit status of a process that closed its pipe may take."""
_LOOK_SECONDS = 5.0
"""How often a pool asks how many CPUs the cluster has now: nodes join and go."""
_AHEAD = 2
"""Tasks for each CPU of a cluster: one at work, one that waits beside it."""


def _nobody(text: str) -> None:
    """Hears what nobody wants to know."""


class ProcessPool:
    """Local processes. They are forked from a clean server: forking a process that runs threads can hang.

    Args:
        say: told when a process is gone and another goes on.
    """

    def __init__(self, say: Say = _nobody) -> None:
        self._say = say

    def prepare(self, modules: Sequence[str]) -> None:
        """Start the server and let it import the modules, which its processes then have; this process goes on."""
        from multiprocessing import forkserver

        multiprocessing.get_context("forkserver").set_forkserver_preload([__name__, *modules])
        forkserver.ensure_running()

    def map(
        self, function: Callable[[Piece], Done], pieces: Iterable[Piece], workers: int | None = None
    ) -> Iterator[Done]:
        """The result of each piece, in the order in which they finish.

        Raises:
            FoundationError: what a piece raised, or that no process survives it.
        """
        tasks, kills, most = Tasks(pieces, self._say), kernel_kills(), workers or LOCAL_WORKERS
        crew, idle, busy = list[_Worker](), list[_Worker](), dict[Any, tuple[_Worker, Task[Piece]]]()

        def begin() -> None:
            while len(busy) < most and (task := tasks.next()) is not None:
                if not idle:
                    idle.append(_Worker(function))
                    crew.append(idle[-1])
                worker = idle.pop()
                busy[worker.pipe] = worker, task
                worker.begin(task.piece)

        try:
            begin()
            while busy:
                done = list[Any]()
                for pipe in wait(list(busy)):
                    worker, task = busy.pop(pipe)
                    try:
                        outcome: _Outcome = worker.pipe.recv()
                    except (EOFError, OSError):
                        crew.remove(worker)
                        kills, before = kernel_kills(), kills
                        outcome = _Outcome(None, None, Loss.of_status(worker.left(), for_memory=kills > before))
                    if (loss := outcome.loss) is not None:
                        worker.leave()  # if it lives: what it holds is of use to the others
                        more = ""
                        if loss.cause is Cause.MEMORY and most > 1:
                            most, more = most - 1, f"; of {most} processes {most - 1} go on, with the memory of all"
                        tasks.lost(task, loss, more)
                        continue
                    idle.append(worker)
                    if outcome.error is not None:
                        raise outcome.error
                    done.append(outcome.value)
                begin()  # before the results are looked at: nobody waits for that
                yield from done
        finally:
            for worker in crew:
                worker.leave()
            for worker in crew:
                worker.process.join()


class _Outcome(NamedTuple):
    """What became of a piece: its result, or an error that is raised, or a loss that another try follows."""

    value: Any
    error: Exception | None
    loss: Loss | None = None


class _Worker:
    """A process that does one piece after the other."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, function.__module__])  # where nobody prepared
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(function, theirs), daemon=True)
        self.process.start()
        theirs.close()  # now the process alone holds it: the pipe ends when the process does

    def begin(self, piece: Any) -> None:
        """Hand it a piece; if it is gone, its pipe says so to whoever waits for the result."""
        try:
            self.pipe.send(piece)
        except OSError:
            return

    def leave(self) -> None:
        """Let it go when it is through with what it has in hand."""
        self.pipe.close()

    def left(self) -> int | None:
        """The exit status of a process whose pipe ended; None if nobody knows it."""
        self.pipe.close()
        self.process.join(_LEAVE_SECONDS)
        return self.process.exitcode


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    """Do one piece after the other, until nobody holds the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the first process, which says what to do
    while True:
        piece = None
        try:
            piece = pipe.recv()
        except (EOFError, OSError):
            return
        except Exception as error:  # what it is made of cannot be imported here
            outcome = _Outcome(None, _portable(error))
        else:
            outcome = _outcome(function, piece)
        try:
            pipe.send_bytes(_packed(outcome))
        except OSError:
            return


def _packed(outcome: _Outcome) -> bytes:
    """An outcome as `recv` wants it; of one that cannot leave the process, why not."""
    try:
        return bytes(ForkingPickler.dumps(outcome))
    except MemoryError:
        return bytes(ForkingPickler.dumps(_Outcome(None, None, NO_MEMORY)))
    except Exception as error:  # whatever a result's own pickling raises
        return bytes(ForkingPickler.dumps(_Outcome(None, _portable(error))))


def _outcome(function: Callable[[Any], Any], piece: Any) -> _Outcome:
    try:
        return _Outcome(function(piece), None)
    except MemoryError:
        return _Outcome(None, None, NO_MEMORY)
    except Exception as error:  # raised again by who asked for the piece
        return _Outcome(None, _portable(error))


def _portable(error: Exception) -> Exception:
    """The error, or what can be said of it where it cannot leave the process, with the place where it happened."""
    if not isinstance(error, FoundationError):
        error.add_note("in a process of the pool:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error of another package may refuse both ways
        return as_foundation_error(error)
    return error


class RayPool:
    """Tasks of the Ray cluster that this process is connected to, one CPU each, spread over its nodes.

    Args:
        say: told when a worker or node is gone and another goes on.
    """

    def __init__(self, say: Say = _nobody) -> None:
        self._say = say

    def prepare(self, modules: Sequence[str]) -> None:
        """Nothing: a node's workers import what their first task needs, and are used again."""

    def map(
        self, function: Callable[[Piece], Done], pieces: Iterable[Piece], workers: int | None = None
    ) -> Iterator[Done]:
        """The result of each piece, in the order in which they finish; a lost worker's piece is tried again.

        Args:
            workers: in flight at the most. None: two for each CPU of the cluster, as nodes join and leave.

        Raises:
            FoundationError: what a piece raised, or that no worker survives it.
        """
        import ray

        # not by Ray itself: it does not count, and begins a piece that fills the memory for ever
        remote = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_task)
        known, tasks, room = ray.put(function), Tasks(pieces, self._say), _Room(workers)
        flying = dict[Any, Task[Piece]]()
        try:
            while True:
                while len(flying) < room.now() and (task := tasks.next()) is not None:
                    flying[remote.remote(known, task.piece)] = task
                if not flying:
                    return
                ready, rest = ray.wait(list(flying))
                ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0] if rest else []
                for reference in ready:
                    task = flying.pop(reference)
                    try:
                        done = _value(reference)
                    except _Lost as lost:
                        tasks.lost(task, lost.loss)
                    else:
                        yield done
        finally:
            for reference in flying:
                ray.cancel(reference, force=True)

    def map_in_order(self, function: Callable[[Piece], Done], pieces: Iterable[Piece], workers: int) -> Iterator[Done]:
        """The result of each piece, in the order of the pieces; only two a worker are taken ahead."""
        import ray

        remote = ray.remote(num_cpus=1, max_retries=3)(function)
        waiting = iter(pieces)
        flying = deque(remote.remote(piece) for piece in islice(waiting, 2 * workers))
        try:
            while flying:
                try:
                    done = _value(flying.popleft())
                except _Lost as lost:
                    fix = "run the same command again"
                    raise TransientError(f"a Ray task was lost: its process {lost.loss.words}", fix=fix) from lost
                flying.extend(remote.remote(piece) for piece in islice(waiting, 1))
                yield done
        finally:
            for reference in flying:
                ray.cancel(reference, force=True)


class _Room:
    """How many tasks may be in flight.

    Args:
        said: by somebody. None: it goes with the cluster.
    """

    def __init__(self, said: int | None) -> None:
        self._said, self._found, self._looked = said, 0, float("-inf")

    def now(self) -> int:
        """At this moment, or some seconds ago."""
        if self._said is not None:
            return self._said
        if time.monotonic() > self._looked + _LOOK_SECONDS:
            import ray

            self._found, self._looked = int(ray.cluster_resources().get("CPU", 0)), time.monotonic()
        return max(1, _AHEAD * self._found)


def _task(function: Callable[[Piece], Done], piece: Piece) -> Done:
    """What runs on a node.

    Raises:
        MemoryError: it got none; one of a library may not be able to leave the process.
    """
    try:
        return function(piece)
    except MemoryError as error:
        raise MemoryError(str(error)) from error


class _Lost(Exception):
    """A task's worker or node is gone."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        super().__init__(loss.words)


def _value(reference: Any) -> Any:
    import ray
    from ray import exceptions

    try:
        return ray.get(reference)
    except exceptions.RayTaskError as error:
        if isinstance(error.cause, MemoryError):
            raise _Lost(NO_MEMORY) from error
        raise error.cause from error
    except exceptions.OutOfMemoryError as error:
        raise _Lost(Loss(Cause.MEMORY, "was ended by Ray for want of memory on its node")) from error
    except (exceptions.NodeDiedError, exceptions.LocalRayletDiedError, exceptions.ObjectLostError) as error:
        raise _Lost(Loss(Cause.NODE, "went with its node")) from error
    except exceptions.RayError as error:
        raise _Lost(Loss(Cause.KILLED, f"is gone ({_first_line(error)})")) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
