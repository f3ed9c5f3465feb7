"""Bytes become the text that they were written as, or are refused: never a text that only might be it."""

from __future__ import annotations

import random
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.data.reading.decoding import WESTERN, decoded
from foundation_core.data.sources.modalities import normalise

QUIJOTE = (
    "En un lugar de la Mancha, de cuyo nombre no quiero acordarme, no ha mucho tiempo que vivía un hidalgo de los de"
    " lanza en astillero, adarga antigua, rocín flaco y galgo corredor. Una olla de algo más vaca que carnero, salpicón"
    " las más noches, duelos y quebrantos los sábados, lantejas los viernes, algún palomino de añadidura los domingos,"
    " consumían las tres partes de su hacienda. ¿Quién lo dice? ¡Cervantes! «El ingenioso hidalgo» — 1605…"
)
KAFKA = (
    "Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte, fand er sich in seinem Bett zu einem ungeheuren"
    " Ungeziefer verwandelt. Er lag auf seinem panzerartig harten Rücken und sah, wenn er den Kopf etwas hob, seinen"
    " gewölbten, braunen, von bogenförmigen Versteifungen geteilten Bauch. „Was ist mit mir geschehen?“, dachte er."
    " Es war kein Traum. Draußen fiel Regen auf das Fensterblech – grüßend, müßig, übel."
)
OTHERS = {
    "cp1251": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.",
    "koi8_r": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.",
    "cp1250": "Litwo! Ojczyzno moja! ty jesteś jak zdrowie; Ile cię trzeba cenić, ten tylko się dowie, Kto cię"
    " stracił. Dziś piękność twą w całej ozdobie Widzę i opisuję, bo tęsknię po tobie. Panno święta, co Jasnej bronisz"
    " Częstochowy, i w Ostrej świecisz Bramie! Ty, co gród zamkowy Nowogródzki ochraniasz z jego wiernym ludem!",
    "cp1253": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "shift_jis": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で。",
}
OLD = ("cp1252", "latin-1", "utf-16", "utf-32")


def _sentences(text: str) -> st.SearchStrategy[str]:
    """Runs of a text's words, four at least."""
    words = text.split()
    starts = st.tuples(st.integers(0, len(words) - 4), st.integers(4, len(words)))
    return starts.map(lambda cut: " ".join(words[cut[0] : cut[0] + cut[1]]))


@given(st.one_of(_sentences(QUIJOTE), _sentences(KAFKA)), st.sampled_from(OLD))
def test_spanish_and_german_come_back_from_old_encodings(text: str, encoding: str) -> None:
    data = text.encode(encoding, "ignore")
    wanted = data.decode(encoding)
    found = decoded(data, repair=True)
    assert found.text == wanted
    assert (found.encoding == "utf-8") is (encoding in ("cp1252", "latin-1") and data.isascii())


def test_the_encoding_is_named_by_what_only_it_has() -> None:
    assert decoded("¿Dónde?".encode("latin-1"), repair=True) == ("¿Dónde?", "latin-1")
    assert decoded("¿Dónde? “Aquí”".encode("cp1252"), repair=True) == ("¿Dónde? “Aquí”", "windows-1252")


@pytest.mark.parametrize(("encoding", "text"), OTHERS.items())
def test_text_of_another_script_or_alphabet_is_not_taken_for_a_western_one(encoding: str, text: str) -> None:
    text = f"{text}\n{text}"
    found = decoded(text.encode(encoding), repair=True)
    assert found.text == unicodedata.normalize("NFC", text)
    assert found.encoding not in ("windows-1252", "latin-1", "utf-8")


@given(st.text())
def test_utf_8_is_never_taken_for_anything_else(text: str) -> None:
    data = text.encode()
    for repair in (False, True):
        if "\0" in text:
            with pytest.raises(ValueError, match=f"a NUL byte at offset {data.index(0)}"):
                decoded(data, repair)
        else:
            assert decoded(data, repair) == (normalise(data), "utf-8")


@given(st.binary(max_size=300))
def test_without_repair_bytes_are_read_or_refused_as_they_are_without_all_this(data: bytes) -> None:
    outcomes = []
    for read in (lambda: decoded(data, repair=False).text, lambda: normalise(data)):
        try:
            outcomes.append(read())
        except ValueError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a NUL byte at offset 8"),
        (b"\x7fELF\x02\x01\x01\xff", r"a control \(0x7f\) byte at offset 0"),
        (b"caf\xe9 \x01", r"a control \(0x01\) byte at offset 5"),
        (b"\xff\xfea\0\0\0", r"U\+0000 at character 1, read as utf-16"),
        (b"\xff\xfea", "not utf-16: byte 0x61 at offset 2"),
        (b"\xff\xfe\0\0a", "not utf-32: byte 0x61 at offset 4"),
        (b"\xff\xfe\0\xd8", "not utf-16: byte 0x00 at offset 2"),
        (b"ab\xed\xa0\xbd", "a lone surrogate at offset 2"),
        (b"ab\xed\xb8\x80\xed\xa0\xbd", "a lone surrogate at offset 2"),
    ],
)
def test_what_is_no_text_is_refused_with_the_place(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decoded(data, repair=True)


def test_random_bytes_are_refused() -> None:
    for seed in range(500):
        with pytest.raises(ValueError, match=r"not text|in no encoding that is sure|^not utf-16"):
            decoded(random.Random(seed).randbytes(64 + seed), repair=True)


@pytest.mark.parametrize("byte", [0x81, 0x8D, 0x8F, 0x90, 0x9D])
def test_a_byte_that_windows_1252_does_not_define_is_in_none_of_its_texts(byte: int) -> None:
    data = QUIJOTE.encode("cp1252")
    with pytest.raises(ValueError, match="in no encoding that is sure"):
        decoded(data + bytes([byte]), repair=True)
    assert decoded(data + b"\x80", repair=True).text.endswith("…€")


def test_surrogates_in_pairs_are_the_character_that_they_stand_for() -> None:
    data = "\ufeffa\ud83d\ude00é".encode("utf-8", "surrogatepass")
    assert decoded(data, repair=True) == ("a😀é", "cesu-8")
    with pytest.raises(ValueError, match="not UTF-8: byte 0xed at offset 4"):
        decoded(data, repair=False)


def test_texts_come_out_in_nfc_with_plain_line_ends_from_every_encoding() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert decoded("e\u0301\r\na\rb".encode(encoding), repair=True).text == "é\na\nb"


def test_a_misprint_or_an_ordinal_does_not_make_spanish_another_language() -> None:
    text = f"{QUIJOTE} {QUIJOTE} El 1º y la 2ª; un c¡rculo."
    assert decoded(text.encode("cp1252"), repair=True) == (text, "windows-1252")


def test_a_text_in_dos_letters_is_refused_and_not_guessed() -> None:
    with pytest.raises(ValueError, match="in no encoding that is sure"):
        decoded(QUIJOTE.partition("¿")[0].encode("cp850"), repair=True)


@pytest.mark.parametrize("letters", WESTERN.values(), ids=WESTERN)
def test_the_letters_of_each_western_language_are_in_windows_1252(letters: str) -> None:
    text = "".join(f"abcdef {letter} " for letter in letters)
    assert decoded(text.encode("cp1252"), repair=True).text == text


def test_nothing_is_guessed_and_no_guesser_loaded_where_it_is_utf_8() -> None:
    code = (
        "import sys; from foundation_core.data.reading.decoding import decoded; decoded('ñandú'.encode(), True);"
        "decoded('El niño'.encode('cp1252'), True); print('charset_normalizer' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
