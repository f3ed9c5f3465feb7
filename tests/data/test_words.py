"""Texts are cut into words; nothing but spaces gets lost, and the cuts are those of the published tools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.data.rules.words import DIGIT, LETTER, SPACE, alphabet, decode, split

TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text("aB1.,:-'’…\"()/=+~s \n\t é漢😀", max_size=40)


def words_of(text: str) -> list[str]:
    data = np.frombuffer(text.encode(), np.uint8)
    points, starts, stops = np.empty((3, len(data) + 1), np.int32)
    kinds = np.empty(len(data) + 1, np.uint16)
    length = decode(data, 0, len(data), alphabet().kind, points, kinds)
    assert "".join(map(chr, points[:length])) == text
    count = split(points, kinds, length, starts, stops)
    return [text[start:stop] for start, stop in zip(starts[:count], stops[:count], strict=True)]


@given(text=TEXTS)
def test_words_are_the_text_without_its_spaces(text: str) -> None:
    words = words_of(text)
    assert "".join(words) == "".join(text.split())
    assert all(words)


@given(texts=st.lists(TEXTS, max_size=4))
def test_what_spaces_part_is_cut_by_itself(texts: list[str]) -> None:
    assert words_of(" ".join(texts)) == [word for text in texts for word in words_of(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(Don't stop.)", "( Do n't stop . )"),
        ("well-known, and 3+4=7", "well - known , and 3 + 4=7"),
        ("She's here; they'll go...", "She 's here ; they 'll go ..."),
        ("e.g. the U.S. of 2.5%", "e.g. the U.S. of 2.5 %"),
        ("see https://a.org/b,c: now", "see https://a.org/b,c : now"),
        ("one,two end.Next a/b", "one , two end . Next a / b"),
        ("«¿Qué?» dijo.", "« ¿ Qué ? » dijo ."),
        ("foo_bar.baz #1 * x", "foo_bar.baz # 1 * x"),
    ],
)
def test_marks_stand_apart_as_spacy_has_them(text: str, words: str) -> None:
    assert words_of(text) == words.split()


def test_characters_are_known_by_what_they_are() -> None:
    kind, base = alphabet().kind, alphabet().base
    for characters, flag in (("aÉß漢я𝒜", LETTER), ("5٣½", DIGIT), (" \n\u00a0\u3000", SPACE)):
        assert all(kind[ord(character)] & flag for character in characters)
        assert not any(kind[ord(character)] & flag for character in "-?$😀")
    assert [chr(base[ord(character)]) for character in "aÀéŽ漢5"] == list("aaez漢5")
