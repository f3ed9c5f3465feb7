"""How a number of workers may be written as a range: `workers: [1, 4]` is four, and one will do."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar


class _HasWorkers(Protocol):
    @property
    def workers(self) -> int: ...

    @property
    def least_workers(self) -> int | None: ...


_Spec = TypeVar("_Spec", bound=_HasWorkers)


def range_of_workers(values: Any) -> Any:
    """The fields of a spec, with `workers: [least, most]` as least_workers and workers.

    Raises:
        ValueError: the list has not two numbers, or least_workers is given as well.
    """
    if not isinstance(values, dict) or not isinstance(values.get("workers"), (list, tuple)):
        return values
    written = values["workers"]
    if len(written) != 2:
        raise ValueError(f"workers={list(written)} is no range; allowed: a number, or [least, most]")
    if values.get("least_workers") is not None:
        raise ValueError(f"workers={list(written)} and least_workers={values['least_workers']}; allowed: one of them")
    least, most = written
    return {**values, "least_workers": least, "workers": most}


def least_is_not_above_most(spec: _Spec) -> _Spec:
    """The spec itself.

    Raises:
        ValueError: it wants more workers at the least than at the most.
    """
    if spec.least_workers is not None and spec.least_workers > spec.workers:
        raise ValueError(f"least_workers={spec.least_workers} must not exceed workers={spec.workers}")
    return spec
