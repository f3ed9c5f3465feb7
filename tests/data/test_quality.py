"""The compiled pass measures what plain Python measures by the definitions of the published rules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.data.rules import pages, quality
from foundation_core.data.rules.filters import apply_filters, rules_of
from foundation_core.data.rules.pages import Page
from foundation_core.data.rules.quality import COLUMNS, Quality, measure
from foundation_core.plugins import find
from foundation_core.specs import FilterSpec, IngestSpec
from foundation_core.specs.quality import STOP_WORDS, C4Spec, FineWebSpec, GopherSpec, QualitySpec, RepetitionSpec
from tests.data.test_words import words_of

ENGLISH = STOP_WORDS["en"]
PIECES = st.sampled_from(
    ["the", "of", "be", "cat", "#", "...", "…", "1", "-", "• x", "a a a a a", "\n", "\n\n", "\n \n", " "]
)
TEXTS = st.lists(PIECES, max_size=60).map(" ".join) | st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=30)


def _repeated(pieces: list[str]) -> tuple[float, int]:
    before = [piece in pieces[:at] for at, piece in enumerate(pieces)]
    return sum(before) / len(pieces), sum(len(piece) for piece, again in zip(pieces, before, strict=True) if again)


def _top(words: list[str], n: int) -> int:
    grams = Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
    if not grams:
        return 0
    gram, count = grams.most_common(1)[0]
    return len(" ".join(gram)) * count


def _again(words: list[str], n: int) -> int:
    seen, characters, at = set[tuple[str, ...]](), 0, 0
    while at <= len(words) - n:
        gram = tuple(words[at : at + n])
        characters += len("".join(gram)) if gram in seen else 0
        at += n if gram in seen else 1
        seen.add(gram)
    return characters


def by_definition(text: str) -> list[float]:
    """Every column, in plain Python."""
    words, size = words_of(text), max(len(text), 1)
    count = max(len(words), 1)
    spoken = [word for word in words if any(not _is_sign(character) for character in word)]
    lines = text.removesuffix("\n").split("\n") if text else []
    found = [
        len(spoken),
        sum(map(len, spoken)) / max(len(spoken), 1),
        text.count("#") / count,
        (text.count("...") + text.count("…")) / count,
        sum(line.lstrip().startswith(("•", "-")) for line in lines) / max(len(lines), 1),
        sum(line.rstrip().endswith(("...", "…")) for line in lines) / max(len(lines), 1),
        sum(any(character.isalpha() for character in word) for word in words) / count,
        len(set(words) & set(ENGLISH)),
    ]
    for pieces in (re.split(r"\n{2,}", text.strip()), re.split(r"\n+", text)):
        share, characters = _repeated(pieces)
        found += [share, characters / size]
    found += [_top(words, n) / size for n in (2, 3, 4)]
    return found + [_again(words, n) / size for n in range(5, 11)]


def _is_sign(character: str) -> bool:
    return bool(quality.alphabet().kind[ord(character)] & quality.SIGN)


def column(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_every_measure_is_what_its_definition_says(texts: list[str]) -> None:
    found = measure(column(texts), ENGLISH)
    for row, text in zip(found, texts, strict=True):
        assert dict(zip(COLUMNS, row, strict=True)) == pytest.approx(
            dict(zip(COLUMNS, by_definition(text), strict=True))
        )


def test_real_source_too_and_another_text_has_other_measures() -> None:
    texts = [path.read_text() for path in sorted(Path(quality.__file__).parent.glob("*.py"))]
    found = measure(column(texts), ENGLISH)
    for row, text in zip(found, texts, strict=True):
        assert list(row) == pytest.approx(by_definition(text))
    assert list(found[0]) != pytest.approx(by_definition(texts[0] + texts[0]))


def test_a_slice_of_texts_is_measured_from_where_it_starts() -> None:
    texts = column(["one two", "three", "four five six seven", ""])
    assert measure(texts[1:3])[:, 0].tolist() == [1, 4]
    assert measure(texts[3:]).tolist() == [[0] * len(COLUMNS)]
    assert measure(texts[:0]).shape == (0, len(COLUMNS))


def test_measures_of_the_same_texts_share_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes, texts = list[pa.Array](), column(["the cat of the house", "a dog"])
    real: Callable[..., object] = quality.measure
    monkeypatch.setattr(quality, "measure", lambda texts, words: (passes.append(texts), real(texts, words))[1])
    assert Quality("words", ENGLISH)(texts).to_pylist() == [5, 2]
    assert Quality("stop_words", ENGLISH)(texts).to_pylist() == [2, 0]
    assert len(passes) == 1
    assert Quality("stop_words", ("dog",))(texts).to_pylist() == [0, 1]
    assert Quality("words", ENGLISH)(texts[1:]).to_pylist() == [2]
    assert len(passes) == 3


def documents(texts: list[str]) -> pa.Table:
    rows = [{"document": f"d/{number}", "group": "", "text": text} for number, text in enumerate(texts)]
    return pa.Table.from_pylist(
        rows, pa.schema({"document": pa.string(), "group": pa.string(), "text": pa.large_string()})
    )


PROSE = " ".join(
    f"The house number {number} of this street has a garden with apple trees" for number in map(chr, range(97, 123))
)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("The cat and the dog", "words >= 50"),
        ("on at " * 60, "mean_word_characters >= 3"),
        (PROSE.replace(" of ", " # # # of "), "hash_ratio <= 0.1"),
        (PROSE.replace(" of ", " ... ... of "), "ellipsis_ratio <= 0.1"),
        ("\n".join(f"- {word} garden trees" for word in PROSE.split()), "bullet_line_fraction <= 0.9"),
        (
            "\n".join(f"{word} garden and the apple trees with all of their leaves..." for word in PROSE.split()[:60])
            + PROSE,
            "ellipsis_line_fraction <= 0.3",
        ),
        (PROSE.replace(" ", " 123 "), "alphabetic_word_fraction >= 0.8"),
        (PROSE.replace("The", "Das").replace("of", "von").replace("with", "mit"), "stop_words >= 2"),
    ],
)
def test_each_rule_of_gopher_drops_what_breaks_it_and_keeps_prose(text: str, rule: str) -> None:
    spec = IngestSpec(quality=QualitySpec(gopher=GopherSpec(use=True)))
    kept, dropped = apply_filters(documents([PROSE, text]), rules_of(spec))
    assert kept["document"].to_pylist() == ["d/0"]
    assert dropped["rule"].to_pylist() == [rule]


def test_repetition_is_dropped_with_the_value_that_broke_the_rule() -> None:
    spec = IngestSpec(quality=QualitySpec(repetition=RepetitionSpec(use=True)))
    different = "\n".join(f"{a}{b} says {b}{a} to {a}{b}{a} about {b}{b}{a}" for a in "abcdefgh" for b in "klmnop")
    kept, dropped = apply_filters(documents([different, "\n".join(["the same line"] * 9)]), rules_of(spec))
    assert kept["document"].to_pylist() == ["d/0"]
    (row,) = dropped.to_pylist()
    assert row["rule"] == "repeated_line_fraction <= 0.3"
    assert row["value"] == pytest.approx(8 / 9)


def test_stop_words_are_those_of_the_language_or_ones_own() -> None:
    spanish = "La casa que está en la calle de los árboles es de la familia y tiene un jardín con flores. " * 4
    english = IngestSpec(quality=QualitySpec(gopher=GopherSpec(use=True)))
    _, dropped = apply_filters(documents([spanish]), rules_of(english))
    assert dropped["rule"].to_pylist() == ["stop_words >= 2"]
    for own in (
        QualitySpec(language="es", gopher=GopherSpec(use=True)),
        QualitySpec(gopher=GopherSpec(use=True, stop_words=("casa", "calle"))),
    ):
        assert len(apply_filters(documents([spanish]), rules_of(IngestSpec(quality=own)))[0]) == 1


# ------------------------------------------------------------------------------------------------- pages of the web

PAGE_PIECES = st.sampled_from(
    ["The cat sat", "(on it)", ".", "! ", "? No", "...", "{", "}", "Lorem Ipsum ", "lorem\nipsum", " ", "\n", "\n\n",
     " \n", "a line that is longer than thirty characters", '."', "» ", "1. "]
)  # fmt: skip
PAGES = st.lists(PAGE_PIECES, max_size=40).map("".join) | st.text(max_size=30)
MARKS = FineWebSpec().end_marks


def of_pages_by_definition(text: str) -> list[float]:
    """Every column of pages, in plain Python."""
    lines = [line for line in text.split("\n") if line.strip()]
    count, sentences = max(len(lines), 1), 0
    for line in lines:
        words, closed = words_of(line), True
        for at, word in enumerate(words):
            if at == 0 or (closed and word not in ".!?" and not all(map(_is_sign, word))):
                sentences, closed = sentences + 1, False
            closed |= word in {".", "!", "?"}
    return [
        sentences,
        text.count("{"),
        len(re.findall("(?=lorem ipsum)", text, re.IGNORECASE | re.ASCII)),
        sum(line.endswith(MARKS) for line in lines) / count,
        sum(len(line) <= 30 for line in lines) / count,
        (_repeated(lines)[1] if lines else 0) / max(len(text.replace("\n", "")), 1),
        text.count("\n") / max(len(words_of(text)), 1),
    ]


@given(texts=st.lists(PAGES, min_size=1, max_size=5))
def test_every_measure_of_pages_is_what_its_definition_says(texts: list[str]) -> None:
    for row, text in zip(pages.measure(column(texts)), texts, strict=True):
        found = dict(zip(pages.COLUMNS, row, strict=True))
        assert found == pytest.approx(dict(zip(pages.COLUMNS, of_pages_by_definition(text), strict=True)))


def test_sentences_end_with_lines_and_with_marks_but_not_within_quotes_and_abbreviations() -> None:
    texts = ['He said "No." Then he left. Why?', "One line\nand another", "e.g. this (yes.) and", "...", ""]
    assert Page("sentences")(column(texts)).to_pylist() == [3, 2, 2, 1, 0]


def test_real_source_has_the_measures_of_pages_of_its_definition_and_a_slice_starts_where_it_starts() -> None:
    texts = [path.read_text() for path in sorted(Path(quality.__file__).parent.glob("*.py"))]
    found = pages.measure(column(texts))
    for row, text in zip(found, texts, strict=True):
        assert list(row) == pytest.approx(of_pages_by_definition(text))
    assert pages.measure(column(texts)[2:5]).tolist() == found[2:5].tolist()
    assert pages.measure(column(texts)[:0]).shape == (0, len(pages.COLUMNS))


WEB = "\n".join(f"Line {number} of this page says something about house {number}." for number in range(12))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (WEB + "\nLOREM ipsum dolor sit amet.", "lorem_ipsum <= 0"),
        (WEB + "\nfunction () { return 1; }", "curly_brackets <= 0"),
        ("One. Two. Three. Four.", "sentences >= 5"),
        (WEB.replace(".", ","), "end_marked_line_fraction >= 0.12"),
        (WEB + "\nHome\nAbout us" * 14 + "\n", "short_line_fraction <= 0.67"),
        (WEB + "\n" + WEB, "repeated_filled_line_characters <= 0.01"),
        (WEB.replace("\n", "\n" * 8), "newlines_a_word <= 0.3"),
    ],
)
def test_each_rule_of_c4_and_fineweb_drops_what_breaks_it_and_keeps_prose(text: str, rule: str) -> None:
    spec = IngestSpec(quality=QualitySpec(c4=C4Spec(use=True), fineweb=FineWebSpec(use=True)))
    kept, dropped = apply_filters(documents([WEB, text]), rules_of(spec))
    assert kept["document"].to_pylist() == ["d/0"]
    assert dropped["rule"].to_pylist() == [rule]


def test_what_a_short_line_and_an_end_mark_are_is_the_specs_word() -> None:
    texts = column(["A line of words;\nb;"])
    assert Page("end_marked_line_fraction")(texts).to_pylist() == [0]
    assert Page("end_marked_line_fraction", FineWebSpec(end_marks=(";",)))(texts).to_pylist() == [1]
    assert Page("short_line_fraction")(texts).to_pylist() == [1]
    assert Page("short_line_fraction", FineWebSpec(short_line_characters=5))(texts).to_pylist() == [0.5]
    rule = rules_of(IngestSpec(quality=QualitySpec(fineweb=FineWebSpec(use=True, short_line_characters=5))))[1]
    assert rule.measure(texts).to_pylist() == [0.5]
    with pytest.raises(ValueError, match="single characters"):
        FineWebSpec(end_marks=("...",))


def test_without_rules_nothing_is_measured_and_every_column_is_a_registered_measure() -> None:
    assert rules_of(IngestSpec()) == ()
    for name in set(COLUMNS) - {"stop_words"}:
        assert find("measures", name) == Quality(name)
    for name in pages.COLUMNS:
        assert find("measures", name) == Page(name)
    (rule,) = rules_of(IngestSpec(filters=(FilterSpec(measure="words", at_least=2),)))
    assert rule.measure(column(["one", "one two"])).to_pylist() == [1, 2]
