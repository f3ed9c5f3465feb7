"""The parts of a step of writing as machine code: products, norms, activations, attention of one new token a row.

    x_RD ──> linear ──> y_RN             weights (N, D) are read once for all rows
    q, k, v ──> attention ──> y_RD       over what the cache holds, from the row's first token

Arithmetic is float32; weights and cache are kept as the model has them. Each function does a share of the work, which
the caller names; all of R rows are written side by side, and arrays have 1, 4 or 8 rows in memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from foundation_core.data.compiled import pointer, vectorised
from foundation_core.generation.machine import FLOAT, ONE, ZERO, exponential, gelu, kept, silu, widened

Array = np.ndarray[Any, Any]

NO_NORM, LAYER_NORM, RMS_NORM = range(3)
GELU, RELU, SILU, SQUARED_RELU = range(4)
WEIGHT, BIAS = range(2)
"""Of a linear layer or a norm: places of their addresses; 0 where there is none."""


class Make(NamedTuple):
    """What all blocks of a model have in common.

    Args:
        residual: where the norm of a branch stands, a number of `step`.
        norm: which one all norms are.
        activation: of the feed-forward layers.
        rotary: whether queries and keys are turned.
        biased: whether scores have a bias by distance.
    """

    depth: int
    width: int
    heads: int
    kv_heads: int
    hidden: int
    vocabulary: int
    residual: int
    norm: int
    epsilon: float
    activation: int
    rotary: bool
    biased: bool


class Tables(NamedTuple):
    """What depends on positions alone, float32.

    Args:
        place: (S, D) to add to a token's vector; (0, D) where nothing is added.
        cos: (S, E / 2).
        sin: the same.
        score: (H, S) to add to a score, by distance.
    """

    place: Array
    cos: Array
    sin: Array
    score: Array


@vectorised
def matrix(address: int, like: Array, rows: int, columns: int) -> Array:
    """A weight where the model has it."""
    found: Array = numba.carray(pointer(address, like), (rows, columns))
    return found


@vectorised
def share_of(me: int, team: int, whole: int) -> tuple[int, int]:
    """A thread's part of a number of features; parts begin at even ones."""
    pairs = (whole + 1) // 2
    return 2 * (pairs * me // team), min(2 * (pairs * (me + 1) // team), whole)


@vectorised
def linear(
    part: Array, like: Array, x: Array, y: Array, rows: int, sizes: tuple[int, int], who: tuple[int, int]
) -> None:
    """A thread's share of a linear layer, put into y.

    Args:
        sizes: features in and out.
        who: the thread, and how many there are.
    """
    width, features = sizes
    share = share_of(who[0], who[1], features)
    weight_ND = matrix(part[WEIGHT], like, features, width)
    if rows == 1:
        _with_one(weight_ND, x, y, share)
    elif rows <= 4:
        _with_four(weight_ND, x, y, share)
    else:
        _with_eight(weight_ND, x, y, share)
    if part[BIAS] != 0:
        bias_1N = matrix(part[BIAS], like, 1, features)
        for row in range(rows):
            for n in range(share[0], share[1]):
                y[row, n] += widened(bias_1N[0, n])


@vectorised
def _with_one(weight_ND: Array, x_RD: Array, y_RN: Array, share: tuple[int, int]) -> None:
    for n in range(share[0], share[1]):
        match = ZERO
        for d in range(weight_ND.shape[1]):
            match += widened(weight_ND[n, d]) * x_RD[0, d]
        y_RN[0, n] = match


@vectorised
def _with_four(weight_ND: Array, x: Array, y: Array, share: tuple[int, int]) -> None:
    """Two rows of the weight at once: what is read of x serves both, and the sums still fit into registers."""
    for n in range(share[0], share[1], 2):
        m = min(n + 1, share[1] - 1)
        n0 = n1 = n2 = n3 = m0 = m1 = m2 = m3 = ZERO
        for d in range(weight_ND.shape[1]):
            u, v = widened(weight_ND[n, d]), widened(weight_ND[m, d])
            n0, n1, n2, n3 = n0 + u * x[0, d], n1 + u * x[1, d], n2 + u * x[2, d], n3 + u * x[3, d]
            m0, m1, m2, m3 = m0 + v * x[0, d], m1 + v * x[1, d], m2 + v * x[2, d], m3 + v * x[3, d]
        y[0, n], y[1, n], y[2, n], y[3, n] = n0, n1, n2, n3
        y[0, m], y[1, m], y[2, m], y[3, m] = m0, m1, m2, m3


@vectorised
def _with_eight(weight_ND: Array, x: Array, y: Array, share: tuple[int, int]) -> None:
    for n in range(share[0], share[1], 2):
        m = min(n + 1, share[1] - 1)
        n0 = n1 = n2 = n3 = n4 = n5 = n6 = n7 = ZERO
        m0 = m1 = m2 = m3 = m4 = m5 = m6 = m7 = ZERO
        for d in range(weight_ND.shape[1]):
            u, v = widened(weight_ND[n, d]), widened(weight_ND[m, d])
            n0, n1, n2, n3 = n0 + u * x[0, d], n1 + u * x[1, d], n2 + u * x[2, d], n3 + u * x[3, d]
            n4, n5, n6, n7 = n4 + u * x[4, d], n5 + u * x[5, d], n6 + u * x[6, d], n7 + u * x[7, d]
            m0, m1, m2, m3 = m0 + v * x[0, d], m1 + v * x[1, d], m2 + v * x[2, d], m3 + v * x[3, d]
            m4, m5, m6, m7 = m4 + v * x[4, d], m5 + v * x[5, d], m6 + v * x[6, d], m7 + v * x[7, d]
        y[0, n], y[1, n], y[2, n], y[3, n] = n0, n1, n2, n3
        y[4, n], y[5, n], y[6, n], y[7, n] = n4, n5, n6, n7
        y[0, m], y[1, m], y[2, m], y[3, m] = m0, m1, m2, m3
        y[4, m], y[5, m], y[6, m], y[7, m] = m4, m5, m6, m7


@vectorised
def copy(x_RD: Array, y_RD: Array, rows: int) -> None:
    """Puts rows into other memory."""
    for row in range(rows):
        for d in range(x_RD.shape[1]):
            y_RD[row, d] = x_RD[row, d]


@vectorised
def normalise(make: Make, part: Array, like: Array, x_RD: Array, y_RD: Array, rows: int) -> None:
    """Rows, normalised; x and y may be the same. A norm that is not there changes nothing.

    Args:
        part: addresses of the norm's weight and bias.
    """
    width = x_RD.shape[1]
    for row in range(rows):
        if part[WEIGHT] == 0:
            for d in range(width):
                y_RD[row, d] = x_RD[row, d]
            continue
        mean, square = ZERO, ZERO
        if make.norm == LAYER_NORM:
            for d in range(width):
                mean += x_RD[row, d]
            mean /= FLOAT(width)
        for d in range(width):
            square += (x_RD[row, d] - mean) * (x_RD[row, d] - mean)
        scale = ONE / np.sqrt(square / FLOAT(width) + FLOAT(make.epsilon))
        weight_D = matrix(part[WEIGHT], like, 1, width)
        for d in range(width):
            y_RD[row, d] = (x_RD[row, d] - mean) * scale * widened(weight_D[0, d])
        if part[BIAS] != 0:
            bias_D = matrix(part[BIAS], like, 1, width)
            for d in range(width):
                y_RD[row, d] += widened(bias_D[0, d])


@vectorised
def activate(kind: int, x_RN: Array, rows: int, share: tuple[int, int]) -> None:
    """Features of the rows, each by itself."""
    for row in range(rows):
        if kind == GELU:
            for n in range(share[0], share[1]):
                x_RN[row, n] = gelu(x_RN[row, n])
        elif kind == SILU:
            for n in range(share[0], share[1]):
                x_RN[row, n] = silu(x_RN[row, n])
        else:
            for n in range(share[0], share[1]):
                x_RN[row, n] = max(x_RN[row, n], ZERO)
            if kind == SQUARED_RELU:
                for n in range(share[0], share[1]):
                    x_RN[row, n] *= x_RN[row, n]


@vectorised
def turn(x_GE: Array, cos_E: Array, sin_E: Array) -> None:
    """Heads of one token, turned by its position: features i and i + E/2 form a pair."""
    half = len(cos_E)
    for head in range(len(x_GE)):
        for e in range(half):
            first, second = x_GE[head, e], x_GE[head, e + half]
            x_GE[head, e] = first * cos_E[e] - second * sin_E[e]
            x_GE[head, e + half] = second * cos_E[e] + first * sin_E[e]


@vectorised
def remember(new_E: Array, kept_SE: Array, place: int) -> None:
    """A new key or value, put into the cache."""
    for e in range(len(new_E)):
        kept(kept_SE[place], e, new_E[e])


@vectorised
def read(q_E: Array, keys_SE: Array, values_SE: Array, seen: tuple[int, int], bias_S: Array, weight_S: Array) -> None:
    """What one head of one token finds, put in place of its query.

    Args:
        seen: places of the first token that it reads, and of the last, itself.
        bias_S: to add to the scores, by distance; empty for nothing.
        weight_S: room for a number per token.

    Source: Vaswani et al. 2017, equation 1; `foundation_core.model.attention.attend` is the definition.
    """
    first, last = seen
    width = len(q_E)
    scale = ONE / np.sqrt(FLOAT(width))
    for s in range(first, last + 1):
        match = ZERO
        for e in range(width):
            match += q_E[e] * widened(keys_SE[s, e])
        weight_S[s] = match * scale
    if len(bias_S):
        for s in range(first, last + 1):
            weight_S[s] += bias_S[last - s]
    most = weight_S[first]
    for s in range(first, last + 1):
        most = max(most, weight_S[s])
    total = ZERO
    for s in range(first, last + 1):
        weight_S[s] = exponential(weight_S[s] - most)
        total += weight_S[s]
    share = ONE / total
    for e in range(width):
        q_E[e] = ZERO
    s = first
    while s + 3 <= last:  # four values at once: the sums are fetched and put back a quarter as often
        a, b, c, d = weight_S[s] * share, weight_S[s + 1] * share, weight_S[s + 2] * share, weight_S[s + 3] * share
        for e in range(width):
            near = a * widened(values_SE[s, e]) + b * widened(values_SE[s + 1, e])
            q_E[e] += near + c * widened(values_SE[s + 2, e]) + d * widened(values_SE[s + 3, e])
        s += 4
    for rest in range(s, last + 1):
        for e in range(width):
            q_E[e] += weight_S[rest] * share * widened(values_SE[rest, e])
