"""Quality filters: a measure of each document, and the bounds within which it is kept.

Nothing is lost: what a filter drops is written beside the corpus, with the rule and the value that broke it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.plugins import find
from foundation_core.specs import FilterSpec, IngestSpec
from foundation_core.specs.quality import OTHERS

Measure = Callable[[pa.Array], pa.Array]
"""Texts (large_string) -> one double for each; registered under the entry points foundation.measures."""

DROPPED = pa.schema(
    {
        "document": pa.string(),
        "group": pa.string(),
        "rule": pa.string(),
        "value": pa.float64(),
        "kept": pa.string(),
        "text": pa.large_string(),
    }
)
"""A document that was dropped: the rule, the value that broke it, the id of the copy that stays, or "", and how the
text begins that the rule measured. Copies have none, as what stays has it; earlier versions wrote no such column."""


def beginnings(texts: pa.ChunkedArray, characters: int) -> pa.ChunkedArray | pa.Array:
    """What of texts that are dropped is kept, as `DROPPED` has it: their first characters; of no character nulls."""
    if not characters:
        return pa.nulls(len(texts), pa.large_string())
    return pc.utf8_slice_codeunits(texts, 0, characters)


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


class Rule(NamedTuple):
    """A filter, and what measures texts for it."""

    filter: FilterSpec
    measure: Measure


def rules_of(spec: IngestSpec, language: str | None = None) -> tuple[Rule, ...]:
    """The rules that texts must keep, in their order: those of quality, then the filters.

    Args:
        language: of the texts; `OTHERS` for one without lists. None: the spec's.

    Raises:
        ConfigError: nothing installed provides one of the measures.
    """
    rules, language = list[Rule](), spec.quality.language if language is None else language
    if spec.cleaning.in_use:
        rules.append(Rule(FilterSpec(measure="characters", at_least=1.0), characters))  # it may leave nothing of a text
    if language == OTHERS and spec.quality.other_languages == "drop":
        rules.append(Rule(FilterSpec(measure="language_with_lists", at_least=1.0), _nothing))
    if spec.quality.least_language:
        from foundation_core.data.rules.language import InLanguage

        likely = FilterSpec(measure=f"in_{language or 'its_language'}", at_least=spec.quality.least_language)
        rules.append(Rule(likely, InLanguage(language)))
    if published := spec.quality.filters():
        from foundation_core.data.rules import (
            pages,  # compiled code, which few ingestions need
            quality,
        )

        words, web = spec.quality.gopher.stop_words_of(language), spec.quality.fineweb
        for each in (rule for rule in published if rule.measure != "stop_words" or words):
            is_of_pages = each.measure in pages.COLUMNS
            measure = pages.Page(each.measure, web) if is_of_pages else quality.Quality(each.measure, words)
            rules.append(Rule(each, measure))
    if (c4 := spec.quality.c4).use and c4.bad_words is not None:
        from foundation_core.data.rules.bad_words import read_bad_words

        rules.append(Rule(FilterSpec(measure="bad_words", at_most=0.0), read_bad_words(c4.bad_words)))
    return (*rules, *(Rule(each, cast(Measure, find("measures", each.measure))) for each in spec.filters))


def _nothing(texts: pa.Array) -> pa.Array:
    """0 for each text."""
    return pa.repeat(0.0, len(texts))


def apply_filters(table: pa.Table, rules: Sequence[Rule], characters: int = 0) -> tuple[pa.Table, pa.Table]:
    """The documents as (kept, dropped). Rules come in order; a document falls to the first that it breaks.

    Args:
        characters: that are kept of a dropped text.
    """
    texts = table["text"].combine_chunks() if rules else None
    measured = table
    for number, rule in enumerate(rules):  # all first, of all texts: many measures come out of one pass
        measured = measured.append_column(str(number), rule.measure(texts))
    dropped = [DROPPED.empty_table()]
    for number, rule in enumerate(rules):
        for name, allowed in _bounds(rule.filter):
            values = measured[str(number)]
            within = allowed(values)
            told = measured.select(["document", "group", "text"]).append_column("value", values)
            lost = told.filter(pc.invert(within))
            dropped.append(_dropped(lost, name, characters))
            measured = measured.filter(within)
    return measured.select(table.schema.names), pa.concat_tables(dropped)


def _bounds(rule: FilterSpec) -> Iterator[tuple[str, Callable[[pa.Array], pa.Array]]]:
    if (least := rule.at_least) is not None:
        yield f"{rule.measure} >= {least:g}", lambda values: pc.greater_equal(values, least)
    if (most := rule.at_most) is not None:
        yield f"{rule.measure} <= {most:g}", lambda values: pc.less_equal(values, most)


def _dropped(lost: pa.Table, rule: str, characters: int) -> pa.Table:
    columns = {
        "rule": pa.repeat(rule, len(lost)),
        "kept": pa.repeat("", len(lost)),
        "text": beginnings(lost["text"], characters),
    }
    told = lost.select(["document", "group", "value"])
    for name, column in columns.items():
        told = told.append_column(name, column)
    return told.select(DROPPED.names).cast(DROPPED)
