"""Which documents hold what evaluation sets ask: runs of words that both have, found by their hashes.

    sets --fold, hash--> runs of n words --> a table of hashes on disk --memory map--> every worker looks documents up

A word is a row of letters and digits, in small letters without diacritics; in scripts that write no spaces, each
character is one. Punctuation, line ends and spaces only part words, so "well-known," is what "Well known" is.

A text shorter than n words is one run of its own length. Two different runs have the same hash of 64 bits with a chance
of 5e-20: among 10^12 words and 10^7 runs of the sets, half a run is found that is not there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foundation_core.data.compiled import compiled, inlined
from foundation_core.data.copies.evaluation_sets import evaluation_texts, set_digests
from foundation_core.data.rules.filters import Rule
from foundation_core.data.rules.repetition import Hash, Hashes, joined, mixed, power
from foundation_core.data.rules.words import DIGIT, LETTER, MARK, Kinds, Points, alphabet, buffers, decode
from foundation_core.data.shards.dataset import arrow_bytes, read_arrow
from foundation_core.data.units.work import Unit
from foundation_core.errors import ConfigError
from foundation_core.specs.decontamination import DecontaminationSpec, EvaluationSetSpec
from foundation_core.specs.quality import FilterSpec

GRAMS_FILE, SETS_FILE = "grams.arrow", "sets.json"
_BATCH_TEXTS = 1024
_KANA, _IDEOGRAPHS, _MORE_IDEOGRAPHS, _LAST_PLANE = (0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF), 0x20000
_THAI_AND_LAO, _BURMESE, _KHMER, _HANGUL = (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0xAC00, 0xD7A3)
_FEWEST_PLACES, _FIRST_HITS = 64, 256


class SetGrams(NamedTuple):
    """What is known of a set.

    Args:
        sha256: of its texts.
        grams: different runs of words that are looked for.
        texts_too_short: texts that are not looked for.
    """

    name: str
    sha256: str
    gram_words: int
    texts: int
    texts_too_short: int
    grams: int


class Checked(NamedTuple):
    """The rules that drop documents, one for each set, and what is known of the sets."""

    rules: tuple[Rule, ...]
    sets: tuple[SetGrams, ...]

    def describe(self, dropped_by_rule: Mapping[str, int]) -> list[dict[str, Any]]:
        """What a summary says of each set, with the number of documents that were dropped for it."""
        dropped = {rule.partition(" ")[0]: count for rule, count in dropped_by_rule.items()}
        return [
            {**one._asdict(), "dropped": dropped.get(rule.filter.measure, 0)}
            for one, rule in zip(self.sets, self.rules, strict=True)
        ]


def check_against(spec: DecontaminationSpec, unit: Unit) -> Checked:
    """The rules of all sets, whose runs of words are written to a unit of work for the processes that read.

    Raises:
        ConfigError, DataError: a set cannot be read, or nothing of it can be looked for.
    """
    if not unit.claimed():
        grams, known = _all_grams(spec)
        body = json.dumps([one._asdict() for one in known]).encode()
        unit.commit({GRAMS_FILE: arrow_bytes(grams), SETS_FILE: body})
    sets = tuple(SetGrams(**known) for known in json.loads((unit.folder / SETS_FILE).read_bytes()))
    rules = []
    for number, one in enumerate(sets):
        least = max(spec.least_grams, math.ceil(spec.least_set_fraction * one.grams))
        allowed = FilterSpec(measure=f"contamination_{one.name}", at_most=least - 1)
        rules.append(Rule(allowed, Contamination(unit.folder / GRAMS_FILE, number)))
    return Checked(tuple(rules), sets)


def _all_grams(spec: DecontaminationSpec) -> tuple[pa.Table, list[SetGrams]]:
    """The hash table of all sets' runs, and what is known of each set.

    Returns:
        A table of columns key (uint64; 0: free), words (of the run, uint16) and sets (uint64, a bit for each set).
    """
    digests, described, found = set_digests(spec), list[SetGrams](), list[_Grams]()
    for one in spec.sets:
        grams, texts, too_short = _grams_of(one, spec)
        found.append(grams)
        if not len(grams.keys):
            raise ConfigError(
                f"ingest.decontamination.sets, {one.name}: none of its {texts} texts has {spec.least_text_words} words",
                fix="correct its path or text_field, or lower ingest.decontamination.least_text_words",
            )
        described.append(SetGrams(one.name, digests[one.name], spec.gram_words, texts, too_short, len(grams.keys)))
    keys, first = np.unique(np.concatenate([grams.keys for grams in found]), return_index=True)
    words, members = np.concatenate([grams.words for grams in found])[first], np.zeros(len(keys), np.uint64)
    for number, grams in enumerate(found):
        members[np.searchsorted(keys, grams.keys)] |= np.uint64(1 << number)
    places = max(_FEWEST_PLACES, 1 << (2 * len(keys) - 1).bit_length())
    columns = np.zeros(places, np.uint64), np.zeros(places, np.uint16), np.zeros(places, np.uint64)
    _fill(keys, words, members, *columns)
    return pa.table(dict(zip(("key", "words", "sets"), columns, strict=True))), described


class _Grams(NamedTuple):
    """Different runs, sorted by hash, and how many words each has."""

    keys: Hashes
    words: NDArray[np.uint16]


def _grams_of(one: EvaluationSetSpec, spec: DecontaminationSpec) -> tuple[_Grams, int, int]:
    """The runs of a set, how many texts it has, and how many of them are too short."""
    known, found = alphabet(), [_Grams(np.zeros(0, np.uint64), np.zeros(0, np.uint16))]
    texts = too_short = 0
    for batch in _batches(one):
        data, offsets = buffers(pa.array(batch, pa.large_string()))
        keys, words = np.empty(offsets[-1] + 1, np.uint64), np.empty(offsets[-1] + 1, np.uint16)
        bounds = np.array([spec.gram_words, spec.least_text_words], np.int64)
        count, short = _runs(data, offsets, known.kind, known.base, bounds, keys, words)
        unique, first = np.unique(keys[:count], return_index=True)
        found.append(_Grams(unique, words[:count][first]))
        texts, too_short = texts + len(batch), too_short + int(short)
    unique, first = np.unique(np.concatenate([grams.keys for grams in found]), return_index=True)
    return _Grams(unique, np.concatenate([grams.words for grams in found])[first]), texts, too_short


def _batches(one: EvaluationSetSpec) -> Iterator[list[str]]:
    batch = list[str]()
    for text in evaluation_texts(one):
        batch.append(text)
        if len(batch) == _BATCH_TEXTS:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(frozen=True)
class Contamination:
    """A measure of texts: how many different runs of a set each has.

    Args:
        grams: the file of the table.
        number: of the set.
    """

    grams: Path
    number: int

    def __call__(self, texts: pa.Array) -> pa.Array:
        """One double for each text."""
        return pa.array(_measured(self.grams, texts)[:, self.number])


class _Last(NamedTuple):
    """The texts that were measured last: the rules of several sets ask for the same ones in turn."""

    grams: Path
    texts: pa.Array
    found: NDArray[np.float64]


_last: list[_Last] = []


def _measured(grams: Path, texts: pa.Array) -> NDArray[np.float64]:
    if not _last or _last[0].texts is not texts or _last[0].grams != grams:
        _last[:] = [_Last(grams, texts, measure(grams, texts))]
    return _last[0].found


def measure(grams: Path, texts: pa.Array) -> NDArray[np.float64]:
    """How many different runs of each set each text has, (texts, 64).

    Args:
        texts: large_string.
    """
    table, known = _table(grams), alphabet()
    found = np.zeros((len(texts), 64))
    if len(texts):
        data, offsets = buffers(texts)
        _count(data, offsets, known.kind, known.base, table, found)
    return found


class _Table(NamedTuple):
    """The hash table, memory-mapped, and the lengths of its runs."""

    keys: Hashes
    sets: Hashes
    lengths: NDArray[np.int64]


@lru_cache(maxsize=1)
def _table(path: Path) -> _Table:
    table = read_arrow(path).combine_chunks()
    keys, words, sets = (table[name].chunk(0).to_numpy() for name in ("key", "words", "sets"))
    return _Table(keys, sets, np.unique(words[keys > 0]).astype(np.int64))


@compiled
def _fill(
    keys: Hashes, words: NDArray[np.uint16], members: Hashes, into: Hashes, lengths: NDArray[np.uint16], sets: Hashes
) -> None:
    for at in range(len(keys)):
        place = _place(into, keys[at])
        into[place], lengths[place], sets[place] = keys[at], words[at], members[at]


@inlined
def _place(keys: Hashes, key: Hash) -> int:
    """Where a key is, or may be put."""
    last = np.uint64(len(keys) - 1)
    place = key & last
    while keys[place] != 0 and keys[place] != key:
        place = (place + np.uint64(1)) & last
    return int(place)


@compiled
def _runs(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    kind: Kinds,
    base: Points,
    bounds: NDArray[np.int64],
    keys: Hashes,
    words: NDArray[np.uint16],
) -> tuple[int, int]:
    """Write the runs of all texts and their lengths; return how many there are, and how many texts are too short."""
    count = short = 0
    for text in range(len(offsets) - 1):
        sums = np.empty((offsets[text + 1] - offsets[text]) // 2 + 2, np.uint64)
        there = _add_up(data, offsets[text], offsets[text + 1], kind, base, sums)
        run = min(bounds[0], there)
        if run < min(bounds[0], bounds[1]):
            short += 1
            continue
        lead = power(run)
        for at in range(there - run + 1):
            keys[count], words[count] = _key(sums, at, run, lead), run
            count += 1
    return count, short


@compiled
def _count(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    kind: Kinds,
    base: Points,
    table: _Table,
    found: NDArray[np.float64],
) -> None:
    """Write how many different runs of each set each text has."""
    longest = np.max(offsets[1:] - offsets[:-1])
    sums, hits = np.empty(longest // 2 + 2, np.uint64), np.empty(_FIRST_HITS, np.int64)
    for text in range(len(offsets) - 1):
        there = _add_up(data, offsets[text], offsets[text + 1], kind, base, sums)
        count = 0
        for length in table.lengths:
            run = int(length)
            lead = power(run)
            for at in range(there - run + 1):
                place = _place(table.keys, _key(sums, at, run, lead))
                if table.keys[place] != 0:
                    if count == len(hits):
                        hits = np.append(hits, np.empty_like(hits))
                    hits[count] = place
                    count += 1
        for place in np.unique(hits[:count]):
            for number in range(64):
                found[text, number] += np.float64(table.sets[place] >> np.uint64(number) & np.uint64(1))


@inlined
def _key(sums: Hashes, at: int, run: int, lead: Hash) -> Hash:
    """The hash of a run of words; never 0, which stands for a free place."""
    return max(mixed(joined(sums[at + run] - sums[at] * lead, run)), np.uint64(1))


@compiled
def _add_up(data: NDArray[np.uint8], first: int, last: int, kind: Kinds, base: Points, sums: Hashes) -> int:
    """Write the hash of a text's first 0, 1, 2, ... words, and return how many words it has.

    A word has two bytes at least, with the one behind it, but for the last one.
    """
    points, kinds = np.empty(last - first + 1, np.int32), np.empty(last - first + 1, np.uint16)
    length = decode(data, first, last, kind, points, kinds)
    lead = power(1)
    sums[0] = 0
    words, hash = 0, np.uint64(0)
    for at in range(length + 1):
        spelt = at < length and kinds[at] & (LETTER | DIGIT) != 0
        alone = spelt and _stands_alone(points[at])
        if hash and (alone or not (spelt or (at < length and kinds[at] & MARK))):
            sums[words + 1] = sums[words] * lead + mixed(hash)
            words, hash = words + 1, np.uint64(0)
        if spelt:
            hash = joined(hash, _folded(points[at], base))
        if alone:
            sums[words + 1] = sums[words] * lead + mixed(hash)
            words, hash = words + 1, np.uint64(0)
    return words


@inlined
def _stands_alone(point: int) -> bool:
    """Whether a character is of a script that writes no spaces."""
    if point < _THAI_AND_LAO[0]:
        return False
    if point >= _LAST_PLANE:
        return True
    for first, last in (_THAI_AND_LAO, _BURMESE, _KHMER, _KANA, _IDEOGRAPHS, _MORE_IDEOGRAPHS):
        if first <= point <= last:
            return True
    return False


@inlined
def _folded(point: int, base: Points) -> int:
    """The small letter without diacritics; a syllable of Korean is taken whole, as its base is its first letter."""
    return point if _HANGUL[0] <= point <= _HANGUL[1] else base[point]
