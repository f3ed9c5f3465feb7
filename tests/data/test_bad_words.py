"""C4's rule against pages with a word of a list: C4's own decision on any text, and the list is part of the key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.data.rules.bad_words import BadWords, bad_words_digest, read_bad_words
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs.quality import C4Spec, QualitySpec
from tests.support.data_folder import DataFolder, little_ingestion, little_text, units, write_texts

WORDS = ("darn", "año malo", "c++", "x-y", "straße")
TEXTS = st.lists(
    st.one_of(st.sampled_from([*WORDS, "DARN", "Año Malo", "darned", "_darn", "été"]), st.text(max_size=3)), max_size=6
)


@given(TEXTS, st.sampled_from(["", " ", "\n", ".", "_", "é", "3"]))
def test_the_decision_is_that_of_c4s_own_expression(parts: list[str], between: str) -> None:
    text = between.join(parts)
    published = re.compile(r"(?:\W|^)({})(?:\W|$)".format("|".join(map(re.escape, WORDS))))
    lowered = text.lower()
    if lowered != pa.compute.utf8_lower(text).as_py():
        return  # a few letters have no small form in one of the two libraries' tables of Unicode
    found = BadWords(WORDS)(pa.array([text], pa.large_string())).to_pylist()
    assert found == [float(published.search(lowered) is not None)]


def test_a_list_of_thousands_of_words_is_one_expression() -> None:
    many = BadWords(tuple(little_text(number)[:12].strip() for number in range(3000)))
    assert many(pa.array([f"it is {many.words[2999]}!", "none"], pa.large_string())).to_pylist() == [1.0, 0.0]


def test_words_of_a_file_are_small_sorted_and_each_once(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("Darn\n\n  c++ \ndarn\n", "utf-8-sig")
    assert read_bad_words(str(path)).words == ("c++", "darn")
    same = tmp_path / "same.txt"
    same.write_text("c++\ndarn")
    assert bad_words_digest(str(path)) == bad_words_digest(str(same))


@pytest.mark.parametrize(
    ("data", "error"), [(None, DataError), (b"\n \n", ConfigError), (b"\xff\xfe\xff", ConfigError)]
)
def test_a_file_without_words_is_refused(tmp_path: Path, data: bytes | None, error: type[Exception]) -> None:
    path = tmp_path / "words.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(error, match="bad_words"):
        read_bad_words(str(path))


def test_pages_with_a_word_are_dropped_by_the_rule_and_another_list_reads_them_anew(tmp_path: Path) -> None:
    texts = {f"{number:02d}.txt": little_text(number) for number in range(20)}
    texts |= {f"bad {number}.txt": f"{little_text(f'bad {number}')} Darn! {{" for number in range(3)}
    folder, raw, words = DataFolder(tmp_path / "home"), write_texts(tmp_path / "raw", texts), tmp_path / "words.txt"
    words.write_text("darn\n")

    def ingested(**c4: Any) -> Any:
        rules = C4Spec(use=True, least_sentences=0, most_curly_brackets=9, **c4)
        quality = QualitySpec(c4=rules, least_language_share=0).model_dump()
        return folder.ingest(little_ingestion(raw, quality=quality))

    result = ingested(bad_words=str(words))
    assert result.summary["dropped_by_rule"] == {"bad_words <= 0": 3}
    again = units(ingested(bad_words=str(words)))["read"]
    assert again[1] == 0
    words.write_text("another\n")
    other = ingested(bad_words=str(words))
    assert units(other)["read"][0] == 0
    assert other.summary["dropped_by_rule"] == {}
    assert ingested().summary["dropped_by_rule"] == {}  # the negative control: no list, no rule
