"""C4's rule against pages with a word of a list: the list is a file of the user's, for the published one is not ours.

    words.txt, a word or phrase a line --> one regular expression --> 1 for each text that holds one of them

A word counts where neither a letter, a digit nor an underscore stands beside it, in letters of any size.

Source: C4 (Raffel et al. 2020, section 2.2) and its code, `get_badwords_filter_fn` in `c4_utils.py` of TensorFlow
Datasets: `(?:\\W|^)(word|...)(?:\\W|$)` on the text in small letters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.errors import ConfigError, DataError
from foundation_core.files import sha256_json

_EDGE = r"[^\pL\pN_]"  # \W as Python has it: the library's own knows ASCII alone


@dataclass(frozen=True)
class BadWords:
    """A measure of texts: 1 where one of the words stands, else 0."""

    words: tuple[str, ...]

    def __call__(self, texts: pa.Array) -> pa.Array:
        """One double for each text."""
        pattern = rf"(?:{_EDGE}|^)(?:{'|'.join(map(re.escape, self.words))})(?:{_EDGE}|$)"
        return pc.cast(pc.match_substring_regex(pc.utf8_lower(texts), pattern), pa.float64())


def read_bad_words(path: str) -> BadWords:
    """The words of a file: in small letters, each once, sorted; blank lines are none.

    Raises:
        ConfigError: it holds no word, or is not UTF-8.
        DataError: it is not there.
    """
    file = Path(path).expanduser()
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"ingest.quality.c4.bad_words: {file} is not UTF-8", fix="save it as UTF-8") from error
    except OSError as error:
        raise DataError(
            f"ingest.quality.c4.bad_words: {file} cannot be read: {error.strerror}", fix="name a file of words"
        ) from error
    words = sorted({line.strip().lower() for line in lines} - {""})
    if not words:
        raise ConfigError(f"ingest.quality.c4.bad_words: {file} holds no word", allowed="a word or phrase a line")
    return BadWords(tuple(words))


def bad_words_digest(path: str) -> str:
    """Hex sha256 of the words of a file: they are an input of the ingestion.

    Raises:
        ConfigError, DataError: as `read_bad_words`.
    """
    return sha256_json(list(read_bad_words(path).words))
