"""Boundaries: pieces of the wanted size, which a change moves beside it and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation_core.data.shards.boundaries import cut

Document = tuple[str, int]


def cut_by_size(documents: list[Document], size: int) -> list[tuple[Document, ...]]:
    """Pieces that end when they are full: what the hashes are better than."""
    cuts, reached = [list[Document]()], 0
    for document in documents:
        if reached + document[1] > size:
            cuts.append([])
            reached = 0
        cuts[-1].append(document)
        reached += document[1]
    return [tuple(piece) for piece in cuts]


def alike(count: int, size: int) -> list[Document]:
    return [(f"d/{number:05d}", size) for number in range(count)]


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 50))), st.integers(1, 40))
def test_pieces_hold_every_document_in_order_and_none_of_several_is_too_large(
    documents: list[Document], size: int
) -> None:
    found = list(cut(documents, size, lambda document: document))
    assert [document for piece in found for document in piece] == documents
    assert all(found)
    assert all(len(piece) == 1 or sum(size for _, size in piece) <= 2 * size for piece in found)


@pytest.mark.parametrize("each", [10, 30, 300])
def test_pieces_have_the_wanted_size_on_average(each: int) -> None:
    found = list(cut(alike(600_000 // each, each), 1000, lambda document: document))
    # 0.95 to 1.01 measured with 400 pieces, whose sizes deviate by half
    assert len(found) == pytest.approx(600, rel=0.1)


@settings(max_examples=30)
@given(st.sets(st.integers(0, 2999), min_size=1, max_size=4), st.sets(st.integers(0, 2999), max_size=4))
def test_a_change_moves_the_boundaries_beside_it_and_no_other(gone: set[int], new: set[int]) -> None:
    before = alike(3000, 10)
    after = [document for number, document in enumerate(before) if number not in gone]
    after = sorted([*after, *((f"d/{number:05d}+", 10) for number in new)])
    made = set(cut(after, 300, lambda document: document)) - set(cut(before, 300, lambda document: document))
    assert len(made) <= 2 * len(gone | new)
    if min(gone | new) < 2000:  # the negative control: all pieces behind the change are others
        assert len(set(cut_by_size(after, 300)) - set(cut_by_size(before, 300))) > 20 or len(after) == len(before)
