"""Filters with reasons, and copies that name what stays."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation_core.data.copies.exact import RULE, exact_copies
from foundation_core.data.rules import filters
from foundation_core.data.sources.modalities import Reader, Text
from foundation_core.errors import ConfigError
from foundation_core.specs import FilterSpec, IngestSpec
from tests.support.deduplication import ROOM, Dropped, dropped_of, exact_copies_in_memory, scratch_parts, without


def documents(texts: list[str]) -> pa.Table:
    rows = [
        {"document": f"s/{number}", "group": "g", "bytes": len(text.encode()), "sha256": text, "text": text}
        for number, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, Reader(Text(IngestSpec()), captioned=False).schema)


def mean_line(text: str) -> float:
    lines = text.splitlines() or [""]
    return sum(map(len, lines)) / len(lines)


def alphanumeric(text: str) -> float:
    return sum(unicodedata.category(character)[0] in "LN" for character in text) / max(1, len(text))


@pytest.mark.parametrize(
    ("measure", "reference"),
    [
        (filters.characters, len),
        (filters.longest_line_characters, lambda text: max(map(len, text.split("\n")))),
        (filters.mean_line_characters, mean_line),
        (filters.alphanumeric_fraction, alphanumeric),
    ],
    ids=["characters", "longest_line_characters", "mean_line_characters", "alphanumeric_fraction"],
)
@given(texts=st.lists(st.text("ab 9_.é漢½\n")))
def test_a_measure_agrees_with_plain_python(
    texts: list[str], measure: filters.Measure, reference: Callable[[str], float]
) -> None:
    found = measure(pa.array(texts, pa.large_string()))
    assert found.type == pa.float64()
    assert found.to_pylist() == pytest.approx([reference(text) for text in texts], abs=1e-12)


def of(*rules: FilterSpec) -> tuple[filters.Rule, ...]:
    return filters.rules_of(IngestSpec(filters=rules))


def test_a_document_falls_to_the_first_rule_that_it_breaks_and_keeps_rule_and_value() -> None:
    rules = [
        FilterSpec(measure="characters", at_least=3, at_most=8),
        FilterSpec(measure="alphanumeric_fraction", at_least=0.5),
    ]
    kept, dropped = filters.apply_filters(documents(["ab", "fine", "......", "far too long", "."]), of(*rules))
    assert kept["document"].to_pylist() == ["s/1"]
    assert {(row["document"], row["rule"], row["value"], row["kept"]) for row in dropped.to_pylist()} == {
        ("s/0", "characters >= 3", 2.0, ""),
        ("s/2", "alphanumeric_fraction >= 0.5", 0.0, ""),
        ("s/3", "characters <= 8", 12.0, ""),
        ("s/4", "characters >= 3", 1.0, ""),
    }


def test_a_value_on_the_bound_is_kept() -> None:
    kept, _ = filters.apply_filters(documents(["abc"]), of(FilterSpec(measure="characters", at_least=3, at_most=3)))
    assert len(kept) == 1


def test_no_filter_keeps_everything_and_an_empty_table_passes_every_filter() -> None:
    assert len(filters.apply_filters(documents(["a", "b"]), of())[0]) == 2
    every = [
        FilterSpec(measure=name, at_least=1)
        for name in ("characters", "longest_line_characters", "mean_line_characters")
    ]
    assert len(filters.apply_filters(documents([]), of(*every))[0]) == 0


def test_an_unknown_measure_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="alphanumeric_fraction"):
        of(FilterSpec(measure="beauty", at_least=1))


def copies(texts: list[str], per_part: int = 4, memory_bytes: int = ROOM) -> Dropped:
    with scratch_parts(texts, per_part, memory_bytes=memory_bytes) as (parts, scratch):
        return dropped_of(without(parts, exact_copies(parts, scratch), RULE, scratch))


@given(
    texts=st.lists(st.text("xyz", max_size=2), max_size=12),
    per_part=st.integers(1, 12),
    memory_bytes=st.sampled_from([1, 400, 4000, ROOM]),
)
@settings(max_examples=40)
def test_of_copies_the_smallest_id_stays_and_the_others_name_it_for_any_parts_and_any_memory(
    texts: list[str], per_part: int, memory_bytes: int
) -> None:
    assert copies(texts, per_part, memory_bytes) == exact_copies_in_memory(texts)


def test_texts_that_differ_in_one_character_are_no_copies() -> None:
    assert copies(["x = 1", "x = 1 ", "x = 2", "x = 1"]) == {3: (0, 2.0)}
