"""Pools: independent pieces of work side by side, on local processes or on a Ray cluster, behind one method."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from foundation_core.errors import TransientError

Piece = TypeVar("Piece")
Done = TypeVar("Done")


class ProcessPool:
    """Local processes. They are forked from a clean server: forking a process that runs threads can hang."""

    def prepare(self, modules: Sequence[str]) -> None:
        """Start the server and let it import the modules, which its processes then have; this process goes on."""
        import multiprocessing
        from multiprocessing import forkserver

        multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))
        forkserver.ensure_running()

    def map(self, function: Callable[[Piece], Done], pieces: Iterable[Piece], workers: int) -> Iterator[Done]:
        """The result of each piece, in the order in which they finish."""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor, as_completed
        from concurrent.futures.process import BrokenProcessPool

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([function.__module__])
        with ProcessPoolExecutor(workers, mp_context=context) as executor:
            futures = [executor.submit(function, piece) for piece in pieces]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BrokenProcessPool as error:
                raise TransientError("a worker process died", fix="run the same command again") from error
            finally:
                executor.shutdown(wait=True, cancel_futures=True)


class RayPool:
    """Tasks of the Ray cluster that this process is connected to, one CPU each, a few in flight at a time."""

    def prepare(self, modules: Sequence[str]) -> None:
        """Nothing: a node's workers import what their first task needs, and are used again."""

    def map(self, function: Callable[[Piece], Done], pieces: Iterable[Piece], workers: int) -> Iterator[Done]:
        """The result of each piece, in the order in which they finish; a lost worker's piece is tried again."""
        import ray

        remote = ray.remote(num_cpus=1, max_retries=3)(function)
        waiting, flying = list(pieces), []
        try:
            while waiting or flying:
                while waiting and len(flying) < workers:
                    flying.append(remote.remote(waiting.pop(0)))
                done, flying = ray.wait(flying)
                yield _value(done[0])
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
                done = _value(flying.popleft())
                flying.extend(remote.remote(piece) for piece in islice(waiting, 1))
                yield done
        finally:
            for reference in flying:
                ray.cancel(reference, force=True)


def _value(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise TransientError(f"a Ray task was lost: {error}", fix="run the same command again") from error
