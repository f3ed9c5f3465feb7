"""Which documents a mixture reads together: those of a group, or those of a source, whatever their groups.

ids, groups:   web/folder/a/1, a | web/folder/b/2, b | books/folder/a/3, a
"a":           web/folder/a/1, books/folder/a/3
OfSource web:  web/folder/a/1, web/folder/b/2
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.errors import ConfigError

_SHOWN = 20


class OfSource(NamedTuple):
    """The documents of one of several sources: their ids begin with its name and a slash."""

    name: str

    def __str__(self) -> str:
        return f"{self.name}/"


Choice = str | OfSource
"""A group by its name, or a source."""


def called(choice: Choice) -> str:
    """What a choice is called in messages."""
    return f"source {choice.name!r}" if isinstance(choice, OfSource) else f"group {choice!r}"


def is_of(table: pa.Table, choice: Choice) -> pa.ChunkedArray:
    """Of each row of a shard, whether its document is chosen."""
    if isinstance(choice, OfSource):
        return pc.starts_with(table["document"], str(choice))
    return pc.equal(table["group"], choice)


def choosable(tables: Iterable[pa.Table], like: Choice) -> str:
    """What could be chosen in place of something that is not there, the first of it."""
    found = set[str]()
    for table in tables:
        if isinstance(like, OfSource):
            ids = table["document"].filter(pc.match_substring(table["document"], "/"))
            found.update(pc.unique(pc.list_element(pc.split_pattern(ids, "/", max_splits=1), 0)).to_pylist())
        else:
            found.update(pc.unique(table["group"]).to_pylist())
    return ", ".join(map(repr, sorted(found)[:_SHOWN])) + (", ..." if len(found) > _SHOWN else "")


def require_apart(tables: Iterable[pa.Table], choices: Sequence[Choice]) -> None:
    """Refuse a group and a source that share documents: these would be read for both, more often than is told.

    Raises:
        ConfigError: two of them do.
    """
    sources = [choice for choice in choices if isinstance(choice, OfSource)]
    groups = [choice for choice in choices if isinstance(choice, str)]
    for table in tables if sources and groups else ():
        for source, group in product(sources, groups):
            if shared := pc.sum(pc.and_(is_of(table, source), is_of(table, group))).as_py():
                raise ConfigError(
                    f"pretrain.mixture has the {called(group)} and the {called(source)}, and a shard has {shared:,}"
                    " documents of both",
                    allowed="entries that share no document",
                    fix="name sources alone, or groups alone",
                )
