"""Texts of a spec: whole and piece by piece they are the same, and end where a stop text does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from foundation_core.generation.texts import Begun, Ending, in_parts, pieces_of, rows_of, texts_of
from foundation_core.model.transformer import Model
from foundation_core.specs.writing import WritingSpec

PROMPTS = [[5], [7, 8, 9], [11, 3]]
LETTERS = "abcdefghijklmnopqrstuvwxyzàéîõü ABCDEFGHIJKLMNOPQRSTUVWXYZ.,\n"


def decode(tokens: Sequence[int]) -> str:
    """Some tokens are one letter twice, some its first byte alone: pieces end within letters. 0 is special."""
    spelt = ((LETTERS[token].encode(), token % 3) for token in tokens if token)
    return b"".join(2 * letter if whole else letter[:1] for letter, whole in spelt).decode(errors="replace")


@pytest.fixture
def begun(tiny_decoder: Callable[..., Model]) -> Begun:
    return Begun(tiny_decoder(), PROMPTS)


@pytest.mark.parametrize(
    "how",
    [
        WritingSpec(seed=3),
        WritingSpec(temperature=1.5, top_k=61, stop=("b", "é", "Q")),
        WritingSpec(temperature=0, repetition_penalty=1.3),
        WritingSpec(beams=3),
        WritingSpec(beams=2, stop=("e",)),
    ],
)
def test_the_pieces_of_a_text_are_the_text(begun: Begun, how: WritingSpec):
    ending, found = Ending(0, decode), ["", "", ""]
    over = [False] * 3
    for step, pieces in enumerate(pieces_of(begun, 20, how, ending)):
        for row, piece in enumerate(pieces):
            assert piece is None or not over[row]  # what has ended grows no more
            over[row] = piece is None
            found[row] += piece or ""
        if step == 5 and how.beams == 1:
            assert any(found)  # long before the end
    assert found == texts_of(begun, 20, how, ending)


def test_a_text_ends_behind_the_first_stop_text_also_inside_a_token(begun: Begun):
    twice = Ending(0, lambda tokens: "".join(f"<{token}>" for token in tokens))
    free = rows_of(begun, 20, WritingSpec(temperature=0), twice)
    cut = WritingSpec(temperature=0, stop=(f"{free[0][4]}", "nothing like it"))
    text = texts_of(begun, 20, cut, twice)[0]
    assert text == twice.decode(free[0])[: len(text)]
    assert text.endswith(cut.stop[0])
    assert cut.stop[0] not in text[:-1]
    assert len(text) < len(twice.decode(free[0]))


def test_rows_that_are_written_apart_draw_otherwise_and_the_first_part_as_ever(begun: Begun):
    parts = list(in_parts(70, WritingSpec(seed=4)))
    assert [row for part, _ in parts for row in part] == list(range(70))
    assert parts[0][1].seed == 4
    assert len({how.seed for _, how in parts}) == len(parts) == 3
    assert len(next(in_parts(70, WritingSpec(beams=8)))[0]) == 4


@pytest.mark.parametrize(
    "other", [{"top_k": 1}, {"top_p": 0.01}, {"min_p": 1.0}, {"temperature": 0.0}, {"repetition_penalty": 9.0},
              {"beams": 4, "temperature": 0.0}, {"seed": 8}],
)  # fmt: skip
def test_each_option_reaches_the_rows(begun: Begun, other: dict[str, float]):
    usual, ending = WritingSpec(temperature=2.0, seed=1), Ending(0, decode)
    changed = WritingSpec.model_validate({**usual.model_dump(), **other})
    assert rows_of(begun, 20, changed, ending) != rows_of(begun, 20, usual, ending)
