"""The error tree. An error says what was found, what is allowed and what to do; its class, whether a retry can help."""

from __future__ import annotations

import traceback


class FoundationError(Exception):
    """Base of every error that a person is meant to read.

    Args:
        found: what was found, with the place.
        allowed: what would have been accepted, or empty.
        fix: what to do, as an instruction, or empty.
    """

    exit_code = 1
    retryable = False

    def __init__(self, found: str, *, allowed: str = "", fix: str = "") -> None:
        self.found, self.allowed, self.fix = found, allowed, fix
        parts = [found, f"Allowed: {allowed}" if allowed else "", f"To do: {fix}" if fix else ""]
        super().__init__("\n  ".join(part for part in parts if part))

    def to_json(self) -> dict[str, str]:
        """The error as it crosses a process border."""
        return {"kind": type(self).__name__, "found": self.found, "allowed": self.allowed, "fix": self.fix}

    @staticmethod
    def from_json(body: dict[str, str]) -> FoundationError:
        """The error that another process wrote with `to_json`; an unknown kind becomes the base class."""
        kind = _BY_NAME.get(body["kind"], FoundationError)
        return kind(body["found"], allowed=body.get("allowed", ""), fix=body.get("fix", ""))


class ConfigError(FoundationError):
    """The recipe or the command line asks for something that cannot be."""

    exit_code = 2


class DataError(FoundationError):
    """The corpus, a shard or a manifest is not what it claims to be."""

    exit_code = 2


class ShardError(DataError):
    """A shard is not what its manifest says."""


class CheckpointError(FoundationError):
    """A checkpoint is missing, edited, truncated or of another model."""

    exit_code = 2


class SetupError(FoundationError):
    """The machine lacks something: workers, disk space."""

    exit_code = 2


class DiskFullError(SetupError):
    """A write found no room."""


class DivergedError(FoundationError):
    """The loss or the gradient stopped being a finite number."""


class SpikeError(DivergedError):
    """The loss leapt above what was allowed; it is finite."""


class TransientError(FoundationError):
    """A service or a worker went away; trying again can help."""

    retryable = True


class DeviceMemoryError(TransientError):
    """A device's memory was full; started again, the training takes smaller micro-batches."""


class SecondWriterError(TransientError):
    """Another process writes where this one wants to; when that one is done, trying again can help."""


class LostConnectionError(TransientError):
    """An exchange with the other ranks broke off; whose fault that was, who looks at all ranks can tell."""


class ElsewhereError(FoundationError):
    """Another rank failed, and its own error says at what; all that do something together leave with it."""


class Stopped(FoundationError):
    """A person or the machine asked the stage to stop, and it saved its work first."""

    exit_code = 130
    retryable = True


class Requeued(Stopped):
    """As `Stopped`, by whoever runs the queue: the same command will be given again, and continues."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


def as_foundation_error(error: Exception) -> FoundationError:
    """An error as one that crosses process borders: itself, or a fault of ours with the place where it happened."""
    if isinstance(error, FoundationError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return FoundationError(
        f"{type(error).__name__}: {error}{place}", fix="this is a fault of the program; please report it"
    )


_KINDS = (
    ConfigError, DataError, ShardError, CheckpointError, SetupError, DiskFullError, DivergedError, SpikeError,
    TransientError, DeviceMemoryError, SecondWriterError, LostConnectionError, ElsewhereError, Stopped, Requeued,
)  # fmt: skip
_BY_NAME = {kind.__name__: kind for kind in _KINDS}
