"""What machine code needs that numba has no words for: the bits of a number, and counters that several threads change.

bfloat16 is the upper half of float32. It is kept as uint16; all arithmetic is float32.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from foundation_core.data.compiled import vectorised

Float32: TypeAlias = Any
"""A number in machine code, where it is no Python float."""
FLOAT: Any = np.float32
LOG2_E, LN_2 = FLOAT(1.4426950408889634), FLOAT(0.6931471805599453)
LEAST, MOST = FLOAT(-87.0), FLOAT(88.0)
"""Between which float32 holds the exponential without losing digits."""
_E2, _E3, _E4, _E5, _E6, _E7 = (FLOAT(c) for c in (5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3,
                                                   1.3981999507e-3, 1.9875691500e-4))  # fmt: skip
_P, _A1, _A2, _A3, _A4, _A5 = (
    FLOAT(c) for c in (0.3275911, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
)
ZERO, HALF, ONE, SQRT_HALF = FLOAT(0), FLOAT(0.5), FLOAT(1), FLOAT(0.7071067811865476)


@intrinsic
def widened(typing: Any, number: Any) -> Any:
    """A number as it is kept, in float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if number == types.float32:
            return arguments[0]
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(arguments[0], word), ir.Constant(word, 16)), ir.FloatType())

    return types.float32(number), generate


@intrinsic
def bits_of(typing: Any, number: Any) -> Any:
    """The bits of a float32, as an integer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def of_bits(typing: Any, bits: Any) -> Any:
    """The float32 that has these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def add_atomically(typing: Any, counter: Any, place: Any, amount: Any) -> Any:
    """Adds to an integer that other threads read and change too. Returns what it was before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", builder.gep(array.data, [arguments[1]]), arguments[2], "seq_cst")

    return types.int64(counter, types.int64, types.int64), generate


@intrinsic
def look(typing: Any, counter: Any, place: Any) -> Any:
    """An integer that other threads change, and all that they wrote before they changed it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.load_atomic(builder.gep(array.data, [arguments[1]]), "acquire", 8)

    return types.int64(counter, types.int64), generate


def kept(numbers: np.ndarray[Any, Any], place: int, number: Float32) -> None:
    """Puts a float32 into an array as that keeps it, rounded to the nearest, and to the even one between two."""
    raise NotImplementedError("compiled code only")


@numba.extending.overload(kept, jit_options={"cache": True})
def _kept(numbers: Any, place: Any, number: Any) -> Any:
    def as_float32(numbers: Any, place: Any, number: Any) -> None:
        numbers[place] = number

    def as_bfloat16(numbers: Any, place: Any, number: Any) -> None:
        bits = np.int64(bits_of(number)) & 0xFFFFFFFF
        numbers[place] = np.uint16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)

    return as_float32 if numbers.dtype == types.float32 else as_bfloat16


@vectorised
def exponential(x: Float32) -> Float32:
    """e to the x, to 3 parts in 10 million. Source: Moshier, Cephes, expf."""
    x = min(max(x, LEAST), MOST)
    whole = np.floor(x * LOG2_E + HALF)
    x = x - whole * LN_2
    y = _E2 + x * (_E3 + x * (_E4 + x * (_E5 + x * (_E6 + x * _E7))))
    return (ONE + x + x * x * y) * of_bits((np.int32(whole) + np.int32(127)) << np.int32(23))


@vectorised
def gelu(x: Float32) -> Float32:
    """x times the share of a normal distribution below it, to 5e-7.

    Source: Hendrycks and Gimpel 2016; the error function by Abramowitz and Stegun 1964, 7.1.26.
    """
    z = abs(x) * SQRT_HALF
    t = ONE / (ONE + _P * z)
    tail = t * (_A1 + t * (_A2 + t * (_A3 + t * (_A4 + t * _A5)))) * exponential(-z * z)
    return HALF * x * (ONE + (ONE - tail if x > ZERO else tail - ONE))


@vectorised
def silu(x: Float32) -> Float32:
    """x times its logistic function. Source: Elfwing et al. 2017."""
    return x / (ONE + exponential(-x))
