"""One step of writing as machine code, from tokens to logits, by a few threads that wait for each other in it.

    token ──> + place ──> x ─┬─> norm ──> query, key, value │ attention │ out │─┬─> + ──> ... ──> norm ──> logits │
                             └──────────────────────────────────────────────────┘
    │ = all threads have come so far

Each thread has the stream of all rows for itself and does a share of each product's features, and of attention's rows
and heads. Norms and sums are done by each: that takes less time than to tell the others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types

from foundation_core.data.compiled import vectorised
from foundation_core.generation.kernels import (
    WEIGHT,
    Array,
    Make,
    Tables,
    activate,
    copy,
    linear,
    matrix,
    normalise,
    read,
    remember,
    share_of,
    turn,
)
from foundation_core.generation.machine import add_atomically, look, widened

BEFORE, AFTER, ON_BRANCH = range(3)
"""Where the norm of a branch stands: on what it reads, on the sum, on what it says."""
MIX_NORM, QUERY_NORM, KEY_NORM, QUERY, KEY, VALUE, OUT, FEED_NORM, UP, GATE, DOWN = range(11)
"""Parts of a block."""
EMBED, STEM_NORM, END_NORM, HEAD = range(4)
"""Parts outside the blocks."""
ARRIVED, PASSED, BEGUN, COUNTERS = 0, 8, 16, 24
"""Counters of a team, each in a line of memory of its own, and how many numbers they take."""
_SPINS, _YIELDS, _NAP_MICROSECONDS = 2_000, 2_000, 100
"""A thread that waits looks without a pause, then lets others have the processor between looks, then sleeps."""

_give_way = types.ExternalFunction("sched_yield", types.int32())
_sleep = types.ExternalFunction("usleep", types.int32(types.uint32))


class Room(NamedTuple):
    """Memory of a step, float32 unless told; R rows, S places in the cache, as many first axes as there are threads.

    Args:
        token, position: (R,) int64, of each row that is still written.
        row: (R,) int64, its number in the cache.
        first: (rows of the cache,) int64, where each begins.
        now: (2,) int64: how many rows there are, and the place of the new tokens in the cache.
        stream, entered: (threads, R, D) x, and what a branch reads.
        query: (R, H E).
        key, value: (R, K E).
        found: (R, D) what attention found.
        said: (R, D) what a branch says.
        up, gate: (R, hidden) between the feed-forward layers.
        weight: (threads, S) of the keys, for one head.
        keys, values: (layers, rows, K, S, E), of the model's number format.
        logits: (R, V).
    """

    token: Array
    position: Array
    row: Array
    first: Array
    now: Array
    stream: Array
    entered: Array
    query: Array
    key: Array
    value: Array
    found: Array
    said: Array
    up: Array
    gate: Array
    weight: Array
    keys: Array
    values: Array
    logits: Array


class Weights(NamedTuple):
    """Where the model's weights are: addresses of weight and bias, 0 for what is not there.

    Args:
        block: (layers, parts, 2) int64.
        outside: (parts, 2) int64.
        like: an empty array of the weights' format.
    """

    block: Array
    outside: Array
    like: Array


@vectorised
def wait(counters: Array, place: int, old: int) -> int:
    """What a counter has become, as soon as it is no longer what it was."""
    looks = 0
    while True:
        now: int = look(counters, place)
        if now != old:
            return now
        looks += 1
        if looks > _SPINS + _YIELDS:
            _sleep(_NAP_MICROSECONDS)
        elif looks > _SPINS:
            _give_way()


@vectorised
def meet(team: int, counters: Array) -> None:
    """Goes on when all threads of the team have come here."""
    if team == 1:
        return
    passed = look(counters, PASSED)
    if add_atomically(counters, ARRIVED, 1) == team - 1:
        add_atomically(counters, ARRIVED, -team)
        add_atomically(counters, PASSED, 1)
    else:
        wait(counters, PASSED, passed)


@vectorised
def enter(make: Make, norm: Array, like: Array, x: Array, branch: Array, rows: int) -> None:
    """What a branch reads of the stream."""
    if make.residual == BEFORE:
        normalise(make, norm, like, x, branch, rows)
    else:
        copy(x, branch, rows)


@vectorised
def leave(make: Make, norm: Array, like: Array, x: Array, said: Array, normed: Array, rows: int) -> None:
    """The stream, with what a branch said.

    Args:
        normed: room for the rows of what it said, normalised.
    """
    if make.residual == ON_BRANCH:
        normalise(make, norm, like, said, normed, rows)
    for row in range(rows):
        added_D = normed[row] if make.residual == ON_BRANCH else said[row]
        for d in range(make.width):
            x[row, d] += added_D[d]
    if make.residual == AFTER:
        normalise(make, norm, like, x, x, rows)


@vectorised
def attend(make: Make, part: Array, tables: Tables, like: Array, room: Room, layer: int, who: Any) -> None:
    """The new token of each row reads its row: a thread's share of the rows and their key heads."""
    rows, last = room.now[0], room.now[1]
    width, group = make.width // make.heads, make.heads // make.kv_heads
    items = rows * make.kv_heads
    for item in range(items * who[0] // who[1], items * (who[0] + 1) // who[1]):
        row, head = item // make.kv_heads, item % make.kv_heads
        q_GE = room.query[row].reshape((make.heads, width))[head * group : (head + 1) * group]
        k_1E = room.key[row].reshape((make.kv_heads, width))[head : head + 1]
        normalise(make, part[QUERY_NORM], like, q_GE, q_GE, group)
        normalise(make, part[KEY_NORM], like, k_1E, k_1E, len(k_1E))
        if make.rotary:
            cos_E, sin_E = tables.cos[room.position[row]], tables.sin[room.position[row]]
            turn(q_GE, cos_E, sin_E)
            turn(k_1E, cos_E, sin_E)
        keys_SE, values_SE = room.keys[layer, room.row[row], head], room.values[layer, room.row[row], head]
        remember(k_1E[0], keys_SE, last)
        remember(room.value[row].reshape((make.kv_heads, width))[head], values_SE, last)
        seen = (room.first[room.row[row]], last)
        for one in range(group):
            query_head = head * group + one
            bias_S = tables.score[query_head] if make.biased else tables.score[0, :0]
            read(q_GE[one], keys_SE, values_SE, seen, bias_S, room.weight[who[0]])
            for e in range(width):
                room.found[row, query_head * width + e] = q_GE[one, e]


@vectorised
def embed(make: Make, weights: Weights, tables: Tables, room: Room, x: Array) -> None:
    """The vectors of the tokens, at their places."""
    table_VD = matrix(weights.outside[EMBED, WEIGHT], weights.like, make.vocabulary, make.width)
    for row in range(room.now[0]):
        for d in range(make.width):
            x[row, d] = widened(table_VD[room.token[row], d])
        if len(tables.place):
            for d in range(make.width):
                x[row, d] += tables.place[room.position[row], d]
    normalise(make, weights.outside[STEM_NORM], weights.like, x, x, room.now[0])


@vectorised
def step(make: Make, weights: Weights, tables: Tables, room: Room, who: tuple[int, int], counters: Array) -> None:
    """One token more in each row: its logits.

    Args:
        who: this thread, and how many there are.
    """
    rows, like, team = room.now[0], weights.like, who[1]
    x, branch = room.stream[who[0]], room.entered[who[0]]
    width, head_width = make.width, make.width // make.heads
    kv_width = make.kv_heads * head_width
    embed(make, weights, tables, room, x)
    for layer in range(make.depth):
        part = weights.block[layer]
        enter(make, part[MIX_NORM], like, x, branch, rows)
        linear(part[QUERY], like, branch, room.query, rows, (width, width), who)
        linear(part[KEY], like, branch, room.key, rows, (width, kv_width), who)
        linear(part[VALUE], like, branch, room.value, rows, (width, kv_width), who)
        meet(team, counters)
        attend(make, part, tables, like, room, layer, who)
        meet(team, counters)
        linear(part[OUT], like, room.found, room.said, rows, (width, width), who)
        meet(team, counters)
        leave(make, part[MIX_NORM], like, x, room.said, branch, rows)
        enter(make, part[FEED_NORM], like, x, branch, rows)
        share = share_of(who[0], team, make.hidden)
        linear(part[UP], like, branch, room.up, rows, (width, make.hidden), who)
        if part[GATE, WEIGHT] == 0:
            activate(make.activation, room.up, rows, share)
        else:
            linear(part[GATE], like, branch, room.gate, rows, (width, make.hidden), who)
            activate(make.activation, room.gate, rows, share)
            for row in range(rows):
                for n in range(share[0], share[1]):
                    room.up[row, n] *= room.gate[row, n]
        meet(team, counters)
        linear(part[DOWN], like, room.up, room.said, rows, (make.hidden, width), who)
        meet(team, counters)
        leave(make, part[FEED_NORM], like, x, room.said, branch, rows)
    normalise(make, weights.outside[END_NORM], like, x, branch, rows)
    linear(weights.outside[HEAD], like, branch, room.logits, rows, (width, make.vocabulary), who)
    meet(team, counters)


@vectorised
def work(make: Make, weights: Weights, tables: Tables, room: Room, who: tuple[int, int], counters: Array) -> None:
    """One step by the first thread; by another one its share of every step, until the team is dismissed."""
    begun = 0
    while True:
        begun = add_atomically(counters, BEGUN, 1) if who[0] == 0 else wait(counters, BEGUN, begun)
        if begun < 0:
            return
        step(make, weights, tables, room, who, counters)
        if who[0] == 0:
            return


@vectorised
def dismiss(counters: Array) -> None:
    """Lets the other threads of a team end."""
    add_atomically(counters, BEGUN, np.int64(-(1 << 62)))
