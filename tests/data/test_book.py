"""A book is read in order: its passages hold every character once, and its last tenth is the test."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.data.sources.book import PASSAGE_CHARACTERS, Book
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import SourceSpec

PARTS = st.sampled_from(["a line of verse\n", "\n", "ñandú 🙂 ", "x" * 700, " \n \n"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("books")


def _book(path: Path, text: str) -> Book:
    path.write_bytes(text.encode())
    return Book(SourceSpec(kind="book", path=str(path)))


@given(parts=st.lists(PARTS, min_size=1, max_size=200), times=st.integers(1, 12))
def test_passages_hold_every_character_once_in_order(folder: Path, parts: list[str], times: int) -> None:
    text = "".join(parts) * times
    files = _book(folder / "play.txt", text).files()
    assert b"".join(file.read() for file in files) == text.encode()
    assert [file.document for file in files] == sorted(file.document for file in files)
    assert max(len(file.read().decode()) for file in files) <= 2 * PASSAGE_CHARACTERS


@given(parts=st.lists(PARTS, min_size=10, max_size=200))
def test_the_last_tenth_of_the_characters_is_the_test_and_nothing_else(folder: Path, parts: list[str]) -> None:
    text = "".join(parts)
    files = _book(folder / "play.txt", text).files()
    test = b"".join(file.read() for file in files if file.splits == ("test",)).decode()
    assert test == text[int(0.9 * len(text)) :]
    assert all(file.splits == ("train", "validation") for file in files if file.splits != ("test",))


def test_a_passage_ends_behind_an_empty_line_where_there_is_one(folder: Path) -> None:
    speech = "ROMEO:\n" + "But soft, what light through yonder window breaks?\n" * 20 + "\n"
    files = _book(folder / "play.txt", speech * 60).files()
    trained = [file.read().decode() for file in files if "test" not in file.splits]
    assert len(trained) > 4
    assert all(passage.endswith("\n\n") for passage in trained[:-1])  # the last one ends where the test begins


def test_what_is_no_book_is_refused_in_words(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"source\.path"):
        Book(SourceSpec(kind="book"))
    with pytest.raises(DataError, match="cannot be read"):
        Book(SourceSpec(kind="book", path=str(folder / "none.txt"))).files()
    (folder / "old.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="UTF-8: byte 3"):
        Book(SourceSpec(kind="book", path=str(folder / "old.txt"))).files()
