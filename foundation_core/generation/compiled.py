"""Writes with a compiled step: its memory, its threads, and the cache that the prompts left.

tokens ──> first thread: step ──────────────────────> logits
                             │ share of the work │
           other threads:  step ── wait ── step ── wait
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foundation_core.generation import step
from foundation_core.generation.makes import Plan, note_on_disk, tables_of
from foundation_core.generation.step import Room
from foundation_core.model.attention import Cache
from foundation_core.model.layout import PADDING, Layout
from foundation_core.model.transformer import Model

_BYTES_A_THREAD, _MOST_THREADS = 1 << 20, 8
"""Weights of which a thread of its own is made, so that threads compute longer than they wait for each other; and how
many of them at most, for they wait for each other five times a block, and memory feeds no more."""


class _TorchAtOneThread:
    """Keeps torch to one thread for as long as anybody writes.

    Its other threads go on looking for work for a while after each call: they would take the processors from a team
    that computes between such calls. A step of two threads took 2.9 ms beside them, and 1.4 without.
    """

    def __init__(self) -> None:
        self._lock, self._writers, self._threads = threading.Lock(), 0, 1

    def begin(self) -> None:
        """Somebody writes."""
        with self._lock:
            if not self._writers:
                self._threads = torch.get_num_threads()
                torch.set_num_threads(1)
            self._writers += 1

    def end(self) -> None:
        """Somebody has written; the last one gives torch its threads back."""
        with self._lock:
            self._writers -= 1
            if not self._writers:
                torch.set_num_threads(self._threads)


_torch = _TorchAtOneThread()


class Compiled:
    """Writes with a compiled step. Threads stay for as long as it does: `close` lets them go.

    Args:
        cache: of the model, with the prompts in it.
        layout: of the prompts.
        new_tokens: that there will be room for.
    """

    def __init__(self, model: Model, plan: Plan, cache: Cache, layout: Layout, new_tokens: int) -> None:
        rows, length = layout.position.shape
        read = sum(weight.nbytes for weight in plan.held)
        self._team = min(torch.get_num_threads(), _MOST_THREADS, 1 + read // _BYTES_A_THREAD)
        self._plan, self._tables = plan, tables_of(model, length + new_tokens)
        self._room = _room(plan, rows, length + new_tokens, self._team)
        self._room.first[:] = 0 if layout.segment is None else (layout.segment == PADDING).sum(dim=1).numpy()
        for name, number in (("keys", 0), ("values", 1)):
            room = torch.from_numpy(getattr(self._room, name)).view(next(model.parameters()).dtype)
            for layer, store in enumerate(cache.stores):
                room[layer, :, :, :length] = store.held()[number]
        self._room.now[1] = length - 1
        self._next_position = layout.position[:, -1].numpy() + 1
        self._logits_BV = torch.zeros(rows, plan.make.vocabulary)
        self._counters = np.zeros(step.COUNTERS, dtype=np.int64)
        self._threads = [self._follower(number) for number in range(1, self._team)]
        _torch.begin()

    def _follower(self, number: int) -> threading.Thread:
        parts = (self._plan.make, self._plan.weights, self._tables, self._room)
        who = (number, self._team)
        thread = threading.Thread(target=step.work, args=(*parts, who, self._counters), daemon=True)
        thread.start()
        return thread

    def write(self, token_B: Tensor, going: Sequence[bool]) -> Tensor:
        """(B, V) float32 logits after one token more in each row that still goes on; those of the others are old."""
        room, row_R = self._room, np.flatnonzero(going)
        count = len(row_R)
        room.now[0], room.row[:count] = count, row_R
        room.now[1] += 1
        room.token[:count], room.position[:count] = token_B.numpy()[row_R], self._next_position[row_R]
        step.work(self._plan.make, self._plan.weights, self._tables, room, (0, self._team), self._counters)
        self._next_position += 1
        self._logits_BV[torch.from_numpy(row_R)] = torch.from_numpy(room.logits[:count])
        return self._logits_BV

    def close(self) -> None:
        """Ends the threads, and gives torch its own back."""
        _torch.end()
        step.dismiss(self._counters)
        for thread in self._threads:
            thread.join()
        note_on_disk(self._plan.weights.like.dtype)


def _room(plan: Plan, rows: int, places: int, team: int) -> Room:
    make, padded = plan.make, next(size for size in (1, 4, 8) if size >= rows)
    head_width = make.width // make.heads

    def floats(*shape: int) -> np.ndarray[Any, Any]:
        return np.zeros(shape, dtype=np.float32)

    kept = (make.depth, rows, make.kv_heads, places, head_width)
    return Room(
        token=np.zeros(rows, dtype=np.int64),
        position=np.zeros(rows, dtype=np.int64),
        row=np.zeros(rows, dtype=np.int64),
        first=np.zeros(rows, dtype=np.int64),
        now=np.zeros(2, dtype=np.int64),
        stream=floats(team, padded, make.width),
        entered=floats(team, padded, make.width),
        query=floats(padded, make.width),
        key=floats(padded, make.kv_heads * head_width),
        value=floats(padded, make.kv_heads * head_width),
        found=floats(padded, make.width),
        said=floats(padded, make.width),
        up=floats(padded, make.hidden),
        gate=floats(padded, make.hidden),
        weight=floats(team, places),
        keys=np.empty(kept, dtype=plan.weights.like.dtype),
        values=np.empty(kept, dtype=plan.weights.like.dtype),
        logits=floats(padded, make.vocabulary),
    )
