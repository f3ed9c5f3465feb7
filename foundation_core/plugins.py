"""Things found by name: sources, modalities, measures, families, objectives, tasks; other packages add theirs."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

from foundation_core.errors import ConfigError, SetupError


@cache
def _table(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"foundation.{group}")}


def member(group: str) -> str:
    """The word for one member of a group."""
    return {"families": "family", "modalities": "modality"}.get(group, group.removesuffix("s"))


def names(group: str) -> list[str]:
    """The names that a recipe may use in a group: sources, modalities, measures, families, objectives or tasks."""
    return sorted(_table(group))


def find(group: str, name: str) -> Any:
    """The object registered under a name.

    Raises:
        ConfigError: nothing installed has that name.
    """
    point = _table(group).get(name)
    if point is None:
        raise ConfigError(
            f"no {member(group)} is called {name!r}",
            allowed=", ".join(names(group)) or "none is installed",
            fix=f"correct the recipe, or install the package that provides it (entry point foundation.{group})",
        )
    return point.load()


def need(extra: str, *modules: str) -> None:
    """Refuse what needs a module that is not installed, with the extra that brings it.

    Raises:
        SetupError: one is not there.
    """
    if missing := [module for module in modules if find_spec(module) is None]:
        raise SetupError(f"{', '.join(missing)} is not installed", fix=f'pip install "foundation-pipeline[{extra}]"')
