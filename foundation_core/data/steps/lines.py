"""Lines that are no prose are removed, all lines of a batch at a time.

    texts --split--> lines --each rule marks those that break it--> lines that stay --join--> texts

Source: C4 (Raffel et al. 2020, section 2.2) and its code, `c4_utils.py` of TensorFlow Datasets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.steps.step import Stepped
from foundation_core.specs.cleaning import END_MARKS, POLICY_PHRASES, LinesSpec
from foundation_core.specs.quality import Language

_CITATION = r"\[\d*\]|\[edit\]|\[citation needed\]"
_WORD = r"[^\s\x{1c}-\x{1f}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
"""What spaces of Unicode part."""
_ELLIPSIS = "..."


class Lines:
    """Removes lines and counts each under the first rule that it breaks."""

    name = "lines"

    def __init__(self, spec: LinesSpec, language: str) -> None:
        """Lists that neither the spec nor the language has decide nothing."""
        self.spec = spec
        self.end_marks = spec.end_marks or _list_of(END_MARKS, language)
        self.policy_phrases = (spec.policy_phrases or _list_of(POLICY_PHRASES, language)) if spec.policies else ()

    def __call__(self, texts: pa.Array) -> Stepped:
        """The texts without such lines, and how many went by each rule; blank lines too."""
        split = pc.split_pattern(texts, "\n")
        lines, stays = pc.utf8_trim_whitespace(pc.list_flatten(split)), pa.repeat(True, len(split.values))
        counted = partial(_counted, offsets=split.offsets)
        changes = dict[str, pa.Array]()
        for kind, breaks in self._rules():
            left = pc.replace_with_mask(stays, stays, pc.invert(breaks(lines)))
            changes[kind] = pc.subtract(_within(counted(stays)), _within(counted(left)))
            lines, stays = lines.filter(left.filter(stays)), left
        if self.spec.citations:
            marks = pc.replace_with_mask(
                pa.repeat(0, len(stays)), stays, pc.cast(pc.count_substring_regex(lines, _CITATION), pa.int64())
            )
            changes["citations"] = _within(counted(marks))
        lines = self._cut(lines)
        kept = pa.ListArray.from_arrays(pc.cast(counted(stays), pa.int32()), lines)
        return Stepped(pc.binary_join(kept, pa.scalar("\n", pa.large_string())), changes)

    def _cut(self, lines: pa.Array) -> pa.Array:
        """The lines without their citations; all rules but those on words look at these."""
        return pc.replace_substring_regex(lines, _CITATION, "") if self.spec.citations else lines

    def _rules(self) -> Iterator[tuple[str, Callable[[pa.Array], pa.Array]]]:
        """Each rule, as what says of lines whether they break it. The cheap ones that leave few lines come first."""
        spec = self.spec
        yield "blank", lambda lines: pc.equal(pc.binary_length(lines), 0)
        if spec.needs_end_mark and self.end_marks:
            yield "no_end_mark", lambda lines: self._has_no_end(self._cut(lines))
        yield "few_words", lambda lines: pc.less(pc.count_substring_regex(lines, _WORD), spec.least_words)
        yield "long_word", lambda lines: _has_word_over(lines, spec.most_word_characters)
        if spec.script_words:
            yield "script_word", lambda lines: _speaks_of(self._cut(lines), spec.script_words)
        if self.policy_phrases:
            yield "policy", lambda lines: _speaks_of(self._cut(lines), self.policy_phrases)

    def _has_no_end(self, lines: pa.Array) -> pa.Array:
        ends = reduce(pc.or_, [pc.ends_with(lines, mark) for mark in self.end_marks])
        return pc.or_(pc.invert(ends), pc.ends_with(lines, _ELLIPSIS))


def _list_of(lists: Mapping[Language, tuple[str, ...]], language: str) -> tuple[str, ...]:
    return next((words for known, words in lists.items() if known == language), ())


def _has_word_over(lines: pa.Array, characters: int) -> pa.Array:
    """Whether a word of a line has more characters; few lines are long enough to have one."""
    long = pc.greater(pc.utf8_length(lines), characters)
    if not pc.any(long).as_py():
        return long
    words = [max(map(len, line.split())) > characters for line in lines.filter(long).to_pylist()]
    return pc.replace_with_mask(long, long, pa.array(words, pa.bool_()))


def _speaks_of(lines: pa.Array, phrases: Sequence[str]) -> pa.Array:
    """Whether a line has one of the phrases, in letters of any size."""
    return pc.match_substring_regex(lines, "|".join(map(re.escape, phrases)), ignore_case=True)


def _counted(values: pa.Array, offsets: pa.Array) -> pa.Array:
    """The sum of the values before each offset."""
    sums = pc.cumulative_sum(pc.cast(values, pa.int64()))
    return pa.concat_arrays([pa.array([0], pa.int64()), sums]).take(offsets)


def _within(counted: pa.Array) -> pa.Array:
    """What lies between each two offsets."""
    return pc.subtract(counted[1:], counted[:-1])
