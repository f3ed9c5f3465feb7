"""Functions as machine code, kept on disk so that only the first process that needs them waits for the compiler."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from foundation_core.errors import SetupError

try:
    import numba
    import numpy as np
    from numba import types
    from numba.extending import intrinsic
except ImportError as error:
    raise SetupError(
        "rules and fuzzy deduplication of texts need numba, which is not installed",
        fix="pip install 'foundation-pipeline[text]'",
    ) from error

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function as machine code."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def inlined(function: Function) -> Function:
    """The same for a step of one: its code is put where it is called, as a call costs more than such a step."""
    return cast(Function, numba.njit(cache=True, nogil=True, forceinline=True)(function))


@intrinsic
def pointer(typing: Any, address: Any, like: Any) -> Any:
    """The address of numbers of the kind that the array `like` holds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.int64, like), generate


@inlined
def int32_at(address: int, length: int) -> Any:
    """The int32 numbers at an address of memory; whoever calls keeps them alive."""
    return numba.carray(pointer(address, _INT32), length)


@inlined
def int64_at(address: int, length: int) -> Any:
    """The int64 numbers at an address of memory; whoever calls keeps them alive."""
    return numba.carray(pointer(address, _INT64), length)


_INT32, _INT64 = np.empty(0, np.int32), np.empty(0, np.int64)


def vectorised(function: Function) -> Function:
    """The same for arithmetic on arrays: sums may be reordered, so that several numbers are added at once."""
    options = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
    return cast(Function, numba.njit(**options)(function))


@cache
def state_of_source() -> str:
    """A digest of all files that hold such functions."""
    state, library = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted([*library.glob("data/*.py"), *library.glob("generation/*.py")]):
        state.update(path.read_bytes())
    return state.hexdigest()[:16]


def _folder() -> Path:
    """Where this version's machine code is kept.

    numba looks only whether the file of the outermost function has changed. What such a function calls is in other
    files, and old code of theirs would go on being used; so each state of the files has a folder of its own.
    """
    kept = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(kept) / "foundation" / "compiled" / state_of_source()


if not os.environ.get("NUMBA_CACHE_DIR"):
    numba.config.CACHE_DIR = str(_folder())
