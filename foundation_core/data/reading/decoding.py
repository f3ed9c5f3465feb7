r"""Bytes as text: UTF-8, and where repair is asked for, the old encodings.

    bytes --UTF-8?--> text
            --repair: byte-order mark? CESU-8? Windows-1252? sure of another?--> text, and what it was in

What is valid UTF-8 is never taken for anything else, and nothing is guessed where a guess is not sure: it is refused.
A text comes out in NFC, with lines ended by \n.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import NamedTuple

UTF8 = "utf-8"
WESTERN = {
    "Spanish": "áéíóúüñ",
    "Portuguese": "áâãàçéêíóôõúü",
    "French": "àâæçéèêëîïôœùûüÿ",
    "German": "äöüßéà",
    "Italian": "àèéìíîòóùú",
    "Catalan": "àçèéíïòóúü",
    "Dutch": "áäçèéêëíïóöúü",
    "Danish and Norwegian": "æøåéèêóòôü",
    "Swedish and Finnish": "åäöéüàšž",
    "Icelandic": "áðéíóúýþæö",
}
"""The letters beyond ASCII that languages written in Windows-1252 use."""
LEAST_WESTERN_FRACTION = 0.95
"""Of the letters beyond ASCII, those that one such language must have: Czech or Turkish text that is read as
Windows-1252 shows letters of several."""
MOST_ACCENTED_FRACTION = 0.25
"""Of all letters, those beyond ASCII in such a language; Greek or Cyrillic read as Windows-1252 has hardly another."""
MOST_CHAOS, LEAST_COHERENCE = 0.02, 0.3
"""When charset-normalizer counts as sure: next to no odd characters, and letters as often as a language has them."""
LEAST_GUESSED_BYTES = 32
"""Bytes beyond ASCII from which charset-normalizer may guess."""
_SAMPLE_BYTES = 1 << 16

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ASCII = bytes(range(128))
_CONTROL_BYTES = re.compile(rb"[\x00-\x07\x0e-\x19\x1c-\x1f\x7f]")
"""Those that no text has. Backspaces, form feeds, the end mark of DOS and escapes are found in old ones."""
_NO_TEXT = re.compile("[\x00-\x07\x0e-\x19\x1c-\x1f\x7f-\x84\x86-\x9f\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff]")
_LONE_SURROGATE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")
_BEYOND_ASCII = re.compile("[^\0-\x7f]")
_SIGN_IN_WORD = re.compile(r"(?<=[^\W\d_])[^\w\s\0-\x7f’‘·\xad–—…](?=[^\W\d_])|(?<=[^\W\d_])[¹²³ªº](?=[^\W\d_])")


class Decoded(NamedTuple):
    """A text, and the encoding that it was in: "utf-8" where nothing was repaired."""

    text: str
    encoding: str


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def decoded(data: bytes, repair: bool) -> Decoded:
    """The text of bytes, and its encoding.

    Args:
        repair: whether other encodings than UTF-8 are looked for.

    Raises:
        ValueError: they are not text, or not in an encoding that is sure; the reason names the place.
    """
    try:
        text, encoding = data.decode("utf-8-sig"), UTF8
    except UnicodeDecodeError as error:
        place = error.start + len(data) - len(error.object)
        if not repair:
            raise ValueError(f"not UTF-8: byte 0x{data[place]:02x} at offset {place}") from error
        text, encoding = _repaired(data, place)
    if "\0" in text:
        raise ValueError(f"not text: a NUL byte at offset {data.index(0)}")
    return Decoded(normalised(text), encoding)


def normalised(text: str) -> str:
    r"""A text in NFC, with lines ended by \n alone."""
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")


def decoded_as(data: bytes, encoding: str) -> str:
    """The text of bytes in a stated encoding.

    Raises:
        ValueError: they are not in it, or the text has characters that no text has.
    """
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding}: byte 0x{data[error.start]:02x} at offset {error.start}") from error
    except UnicodeError as error:  # a mark without text behind it
        raise ValueError(f"not {encoding}: it is not whole") from error
    if found := _NO_TEXT.search(text):
        raise ValueError(f"not text: U+{ord(found[0]):04X} at character {found.start()}, read as {encoding}")
    return text


def _repaired(data: bytes, place: int) -> tuple[str, str]:
    """What is not UTF-8 from a place on, as text, and its encoding."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return decoded_as(data, encoding), encoding
    if found := _CONTROL_BYTES.search(data):
        what = "NUL" if found[0] == b"\0" else f"control (0x{found[0][0]:02x})"
        raise ValueError(f"not text: a {what} byte at offset {found.start()}")
    if data[place] == 0xED and (paired := _with_surrogates(data)) is not None:
        return paired, "cesu-8"
    if (western := _western(data)) is not None:
        return western, "windows-1252" if re.search(rb"[\x80-\x9f]", data) else "latin-1"
    sure = _sure_encoding(data)
    if sure is None:
        raise ValueError(f"not UTF-8 and in no encoding that is sure: byte 0x{data[place]:02x} at offset {place}")
    return decoded_as(data, sure), sure


def _with_surrogates(data: bytes) -> str | None:
    """The text of UTF-8 in which a character above U+FFFF is written as two surrogates; None if it is not that."""
    try:
        text = data.decode(UTF8, "surrogatepass")
    except UnicodeDecodeError:
        return None
    if lone := _LONE_SURROGATE.search(text):
        offset = len(text[: lone.start()].encode(UTF8, "surrogatepass"))
        raise ValueError(f"not text: a lone surrogate at offset {offset}")
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le").removeprefix("\ufeff")


def _western(data: bytes) -> str | None:
    """The text of bytes in Windows-1252, if it reads like a language that is written in it.

    The five bytes that it does not define are in no such text. Latin-1 is a part of it, as texts have no C1 controls.
    """
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return None
    beyond = [letter.lower() for letter in _BEYOND_ASCII.findall(text) if letter.isalpha() and letter not in "ªºµ"]
    plain = len(re.findall("[A-Za-z]", text))
    if not plain or len(beyond) > max(1, MOST_ACCENTED_FRACTION * (plain + len(beyond))):
        return None
    known = max(sum(letter in alphabet for letter in beyond) for alphabet in WESTERN.values())
    strange = len(_SIGN_IN_WORD.findall(text))  # a misprint or two; what other alphabets show in the place of letters
    return text if known >= LEAST_WESTERN_FRACTION * (len(beyond) + strange) else None


def _sure_encoding(data: bytes) -> str | None:
    """The encoding that charset-normalizer finds, if it is sure: of a small part, the lines that are not ASCII."""
    from charset_normalizer import from_bytes

    sample, size = [], 0
    for line in data.splitlines(keepends=True):
        if size < _SAMPLE_BYTES and not line.isascii():
            sample.append(line)
            size += len(line)
    if sum(len(line.translate(None, _ASCII)) for line in sample) < LEAST_GUESSED_BYTES:
        return None
    best = from_bytes(b"".join(sample), cp_exclusion=["utf_8", "utf_7", "utf_16", "utf_16_le", "utf_16_be"]).best()
    if best is None or best.chaos > MOST_CHAOS:
        return None
    if any(best.language in languages for languages in (*WESTERN, "English")):  # then it would be in Windows-1252
        return None
    return best.encoding if best.coherence >= LEAST_COHERENCE or best.language in ("Japanese", "Korean") else None
