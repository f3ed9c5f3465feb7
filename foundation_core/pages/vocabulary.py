"""The entries of a tokenizer as people read them, and which of them a corpus uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

_SHOWN = 24


@dataclass(frozen=True)
class Vocabulary:
    """What is known of a tokenizer.

    Args:
        special: its special tokens.
        longest_bytes: of its longest entry.
        longest: the entries with a letter that have the most bytes, the longest first.
        frequent: the most frequent entries of the training split with their share of its tokens.
        used: entries that the training split uses.
        used_once: those of them that it uses once.
    """

    entries: int
    special: tuple[str, ...]
    longest_bytes: int
    longest: tuple[str, ...]
    frequent: tuple[tuple[str, float], ...]
    used: int
    used_once: int

    @property
    def used_fraction(self) -> float:
        """Share of the entries that the training split uses."""
        return self.used / self.entries


def describe(tokenizer: Tokenizer, train: Iterable[pa.Table]) -> Vocabulary:
    """The facts of a tokenizer.

    Args:
        train: the training split's tables of tokens; each is looked at once.
    """
    size = tokenizer.get_vocab_size()
    counts = _counted(train)
    spelling = Spelling(tokenizer)
    special = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()}
    plain = [spelling(number) for token, number in sorted(tokenizer.get_vocab().items()) if token not in special]
    longest = sorted(plain, key=lambda text: -len(text.encode()))
    frequent = sorted(counts, key=lambda number: (-counts[number], number))[:_SHOWN]
    return Vocabulary(
        entries=size,
        special=tuple(sorted(special, key=special.__getitem__)),
        longest_bytes=len(longest[0].encode()) if longest else 0,
        longest=tuple(islice((text for text in longest if any(map(str.isalpha, text))), _SHOWN)),
        frequent=tuple((spelling(number), counts[number] / counts.total()) for number in frequent),
        used=len(counts),
        used_once=sum(count == 1 for count in counts.values()),
    )


def _counted(train: Iterable[pa.Table]) -> Counter[int]:
    counts = Counter[int]()
    for table in train:
        rows = pc.list_flatten(table["tokens"]).value_counts()
        counts.update(dict(zip(rows.field("values").to_pylist(), rows.field("counts").to_pylist(), strict=True)))
    return counts


class Spelling:
    """What a token stands for; a part of a character as the escapes of its bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = tokenizer.get_added_tokens_decoder()

    def __call__(self, number: int) -> str:
        """The text of a token."""
        token = self._tokenizer.id_to_token(number) or ""
        letters = _bytes_of_letters()
        if number in self._special or not all(letter in letters for letter in token):
            return token
        return bytes(letters[letter] for letter in token).decode("utf-8", "backslashreplace")


@cache
def _bytes_of_letters() -> dict[str, int]:
    """The byte that each letter of a byte-level token stands for: itself where it can be seen, else one from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + place): byte for place, byte in enumerate(unseen)}
