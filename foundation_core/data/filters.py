"""Quality filters: a measure of each document, and the bounds within which it is kept.

Nothing is lost: what a filter drops is written beside the corpus, with the rule and the value that broke it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.plugins import find
from foundation_core.specs import FilterSpec

Measure = Callable[[pa.Array], pa.Array]
"""Texts (large_string) -> one double for each; registered under the entry points foundation.measures."""

DROPPED = pa.schema(
    {
        "document": pa.string(),
        "group": pa.string(),
        "rule": pa.string(),
        "value": pa.float64(),
        "kept": pa.string(),
    }
)
"""A document that was dropped: the rule, the value that broke it, and the id of the copy that stays, or ""."""


def characters(texts: pa.Array) -> pa.Array:
    """Characters of each text."""
    return pc.cast(pc.utf8_length(texts), pa.float64())


def longest_line_characters(texts: pa.Array) -> pa.Array:
    """Characters of each text's longest line."""
    lines = pc.split_pattern(texts, "\n")
    lengths = pa.table({"text": pc.list_parent_indices(lines), "length": pc.utf8_length(pc.list_flatten(lines))})
    longest = lengths.group_by("text", use_threads=False).aggregate([("length", "max")]).sort_by("text")
    return pc.cast(longest["length_max"], pa.float64()).combine_chunks()


def mean_line_characters(texts: pa.Array) -> pa.Array:
    """Characters of each text's average line, the newlines left out."""
    newlines = pc.count_substring(texts, "\n")
    unended = pc.cast(pc.invert(pc.ends_with(texts, "\n")), pa.int32())
    lines = pc.max_element_wise(pc.add(newlines, unended), 1)
    return pc.divide(pc.cast(pc.subtract(pc.utf8_length(texts), newlines), pa.float64()), lines)


def alphanumeric_fraction(texts: pa.Array) -> pa.Array:
    """Share of each text's characters that are letters or digits of any script; 0 for an empty text."""
    letters = pc.utf8_length(pc.replace_substring_regex(texts, r"[^\pL\pN]+", ""))
    return pc.divide(pc.cast(letters, pa.float64()), pc.max_element_wise(pc.utf8_length(texts), 1))


def find_measures(filters: Sequence[FilterSpec]) -> list[Measure]:
    """The measure of each filter.

    Raises:
        ConfigError: nothing installed provides one of them.
    """
    return [cast(Measure, find("measures", rule.measure)) for rule in filters]


def apply_filters(table: pa.Table, filters: Sequence[FilterSpec]) -> tuple[pa.Table, pa.Table]:
    """The documents as (kept, dropped). Filters run in order; a document falls to the first that it fails."""
    dropped = [DROPPED.empty_table()]
    for measure, rule in zip(find_measures(filters), filters, strict=True):
        values = measure(table["text"].combine_chunks())
        for name, allowed in _bounds(rule):
            within = allowed(values)
            dropped.append(_dropped(table, values, name, pc.invert(within)))
            table, values = table.filter(within), values.filter(within)
    return table, pa.concat_tables(dropped)


def _bounds(rule: FilterSpec) -> Iterator[tuple[str, Callable[[pa.Array], pa.Array]]]:
    if (least := rule.at_least) is not None:
        yield f"{rule.measure} >= {least:g}", lambda values: pc.greater_equal(values, least)
    if (most := rule.at_most) is not None:
        yield f"{rule.measure} <= {most:g}", lambda values: pc.less_equal(values, most)


def _dropped(table: pa.Table, values: pa.Array, rule: str, out: pa.Array) -> pa.Table:
    lost = table.select(["document", "group"]).append_column("value", values).filter(out)
    lost = lost.append_column("rule", pa.repeat(rule, len(lost))).append_column("kept", pa.repeat("", len(lost)))
    return lost.select(DROPPED.names).cast(DROPPED)
