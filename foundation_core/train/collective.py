"""What ranks do together beside training: one knows something, or one fails and all must know."""

from __future__ import annotations

from collections.abc import Callable

from foundation_core.errors import ElsewhereError
from foundation_core.train.engine import Engine
from foundation_core.train.votes import agree


def together(engine: Engine, work: Callable[[], None]) -> None:
    """Do something on every rank; where it fails on one, that one raises its error and the others say so."""
    error: Exception | None = None
    try:
        work()
    except Exception as raised:  # whatever it is, the others must hear of it before this rank leaves
        error = raised
    failed = agree(engine, {"failed": float(error is not None)}, engine.device)["failed"]
    if error is not None:
        raise error
    if failed:
        raise ElsewhereError("another worker failed with its checkpoint: its own error says at what")


def of_rank_0(engine: Engine, value: int) -> int:
    """A number below 2 ** 53 that rank 0 knows, on every rank."""
    mine = float(value) if engine.rank == 0 else 0.0
    return int(agree(engine, {"value": mine}, engine.device)["value"])
