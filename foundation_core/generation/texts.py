"""Texts as a `WritingSpec` asks for them: drawn, the most probable token each time, or the best of several beams.

items --Begun--> rows --generate, stream or beam_search--> tokens --decode, cut behind a stop text--> texts
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from foundation_core.generation.beam import beam_search
from foundation_core.generation.generate import generate, stream
from foundation_core.generation.sampling import Sampling, Stop
from foundation_core.model.attention import Memory
from foundation_core.model.transformer import Model
from foundation_core.specs.writing import WritingSpec

Decode = Callable[[Sequence[int]], str]
ROWS_AT_ONCE = 32
"""Rows, beams counted, that are written side by side."""
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a decoder makes of the first bytes of a character."""


class Begun(NamedTuple):
    """Rows to go on with.

    Args:
        model: that continues rows; of an encoder-decoder, its decoder.
        memory: what an encoder made of each row's source.
        prefix: whether a prompt's tokens read each other both ways.
    """

    model: Model
    prompts: Sequence[Sequence[int]]
    memory: Memory | None = None
    prefix: bool = False


class Ending(NamedTuple):
    """How tokens become a text, and which of them ends one.

    Args:
        token: ends a text.
        decode: tokens -> text; the end token is no text.
    """

    token: int
    decode: Decode

    def text(self, tokens: Sequence[int], how: WritingSpec) -> str:
        """The text of a row, cut behind the first stop text in it: a token may reach beyond one."""
        text = self.decode(tokens)
        ends = [text.find(stop) + len(stop) for stop in _stops(how) if stop in text]
        return text[: min(ends)] if ends else text


def rows_of(begun: Begun, max_tokens: int, how: WritingSpec, ending: Ending) -> list[list[int]]:
    """The tokens that are written in each row, at most `max_tokens`; what ends a row, where reached, is its last one.

    Raises:
        ConfigError: the context cannot hold `max_tokens` and a prompt.
    """
    model, prompts, memory, prefix = begun
    stop = _stop(how, ending)
    if how.beams > 1:
        found = beam_search(model, prompts, max_tokens, how.beams, stop, memory=memory, prefix=prefix)
        return [hypothesis.tokens for hypothesis in found]
    return generate(model, prompts, max_tokens, _sampling(how), stop, how.seed, memory, prefix)


def texts_of(begun: Begun, max_tokens: int, how: WritingSpec, ending: Ending) -> list[str]:
    """The text that is written in each row.

    Raises:
        ConfigError: the context cannot hold `max_tokens` and a prompt.
    """
    return [ending.text(row, how) for row in rows_of(begun, max_tokens, how, ending)]


def pieces_of(begun: Begun, max_tokens: int, how: WritingSpec, ending: Ending) -> Iterator[list[str | None]]:
    """The same texts as they grow: after each token the piece that each row has become longer by; None where it ended.

    A character appears when its last byte is there. Beams become texts only at the end: they come as one piece.

    Raises:
        ConfigError: the context cannot hold `max_tokens` and a prompt.
    """
    if how.beams > 1:
        yield list(texts_of(begun, max_tokens, how, ending))
        return
    written: list[list[int]] = [[] for _ in begun.prompts]
    shown = [0] * len(written)
    over = [False] * len(written)

    def piece(row: int, token: int | None) -> str | None:
        if over[row]:
            return None
        if token is not None:
            written[row].append(token)
        text, over[row] = ending.text(written[row], how), token is None
        whole = text if over[row] else text.rstrip(_UNFINISHED)
        start, shown[row] = shown[row], max(shown[row], len(whole))
        return whole[start:]

    model, prompts, memory, prefix = begun
    stop = _stop(how, ending)
    for tokens in stream(model, prompts, max_tokens, _sampling(how), stop, how.seed, memory, prefix):
        yield [piece(row, token) for row, token in enumerate(tokens)]
    yield [piece(row, None) for row in range(len(written))]


def in_parts(rows: int, how: WritingSpec) -> Iterator[tuple[range, WritingSpec]]:
    """Numbers of rows that are written side by side, and how: each part draws by itself."""
    at_once = max(1, ROWS_AT_ONCE // how.beams)
    for first in range(0, rows, at_once):
        part = range(first, min(first + at_once, rows))
        yield part, how.model_copy(update={"seed": how.seed + (first << 32)})


def _sampling(how: WritingSpec) -> Sampling:
    return Sampling(how.temperature, how.top_k, how.top_p, how.min_p, how.repetition_penalty)


def _stop(how: WritingSpec, ending: Ending) -> Stop:
    return Stop(ending.token, _stops(how), ending.decode)


def _stops(how: WritingSpec) -> tuple[str, ...]:
    """Its stop texts as documents have them."""
    return tuple(unicodedata.normalize("NFC", text) for text in how.stop)
