"""What a token is drawn from, checked on shares that are written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foundation_core.errors import ConfigError
from foundation_core.generation.sampling import Sampling, Stop

SHARES = torch.tensor([0.05, 0.4, 0.1, 0.25, 0.2])
LOGITS = SHARES.log()
DRAWS = (torch.arange(20_000) + 0.5) / 20_000


def frequencies(sampling: Sampling, logits: Tensor = LOGITS, seen: Tensor | None = None) -> Tensor:
    """How often each token comes, over draws that are spread evenly from 0 to 1."""
    seen = None if seen is None else seen.expand(len(DRAWS), -1)
    return sampling.choose(logits.expand(len(DRAWS), -1), DRAWS, seen).bincount(minlength=len(logits)) / len(DRAWS)


def renormalised(kept: list[int], shares: Tensor = SHARES) -> Tensor:
    there = torch.zeros_like(shares)
    there[kept] = shares[kept]
    return there / there.sum()


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(), [0, 1, 2, 3, 4]),
        (Sampling(top_k=2), [1, 3]),
        (Sampling(top_p=0.39), [1]),
        (Sampling(top_p=0.41), [1, 3]),
        (Sampling(top_p=0.7), [1, 3, 4]),
        (Sampling(min_p=0.3), [1, 3, 4]),
        (Sampling(min_p=0.6), [1, 3]),
        (Sampling(top_k=4, top_p=0.8, min_p=0.6), [1, 3]),
    ],
)
def test_tokens_come_as_often_as_their_share_among_those_that_are_kept(sampling: Sampling, kept: list[int]):
    torch.testing.assert_close(frequencies(sampling), renormalised(kept), rtol=0, atol=1e-4)


def test_a_temperature_sharpens_before_the_tokens_are_kept_by_their_share():
    sharper = (LOGITS / 0.5).softmax(0)
    torch.testing.assert_close(frequencies(Sampling(0.5)), sharper, rtol=0, atol=1e-4)
    assert sharper[1] > 0.55  # alone enough for a share that takes two tokens at temperature 1
    torch.testing.assert_close(frequencies(Sampling(0.5, top_p=0.55)), renormalised([1]), rtol=0, atol=1e-4)


def test_a_penalty_makes_tokens_of_the_row_rarer_whatever_the_sign_of_their_logit_and_others_not():
    seen = torch.tensor([False, True, False, True, False])
    for shift in (0.0, 5.0):  # logits below 0, and above
        logits = LOGITS + shift
        expected = logits.clone()
        for token in (1, 3):
            expected[token] = logits[token] * 2 if logits[token] < 0 else logits[token] / 2
        found = frequencies(Sampling(repetition_penalty=2.0), logits, seen)
        torch.testing.assert_close(found, expected.softmax(0), rtol=0, atol=1e-4)
        assert found[1] < SHARES[1] - 0.1


@given(st.floats(0, 1), st.floats(0.05, 1), st.floats(0, 1), st.integers(1, 7))
def test_a_token_that_was_left_out_is_never_drawn(draw: float, top_p: float, min_p: float, top_k: int):
    token = Sampling(top_k=top_k, top_p=top_p, min_p=min_p).choose(LOGITS[None], torch.tensor([draw])).item()
    ranked = SHARES.argsort(descending=True).tolist()
    place = ranked.index(token)
    assert place < top_k
    assert place == 0 or SHARES[ranked[:place]].sum() / SHARES[ranked[:top_k]].sum() < top_p + 1e-6
    assert SHARES[token] >= min_p * SHARES.max() - 1e-6


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.5}, {"min_p": -0.1}, {"repetition_penalty": 0}],
)
def test_a_value_that_leaves_nothing_to_draw_from_is_refused_by_name(wrong: dict[str, Any]):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_stop_texts_without_a_decoder_are_refused():
    with pytest.raises(ConfigError, match="decode"):
        Stop(texts=("x",))


BYTES = {0: b"", 1: b"a", 2: b"b", 3: b"\xc3", 4: b"\xa9", 5: b"ab c"}
"""Token 0 is special and no text; 3 and 4 are the two bytes of one letter."""


def decoded(tokens: Sequence[int]) -> str:
    return b"".join(BYTES[token] for token in tokens).decode(errors="replace")


@pytest.mark.parametrize("between", [0, 1, 7, 8, 9, 40, 1000])
def test_special_tokens_inside_a_stop_text_do_not_hide_it(between: int):
    stop = Stop(texts=("ab",), decode=decoded)
    assert stop.ends([5] * 3 + [1] + [0] * between + [2])
    assert not stop.ends([1] + [0] * between + [1])  # control


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.sampled_from(["ab", "b c\N{LATIN SMALL LETTER E WITH ACUTE}", "aab c"]),
)
def test_a_row_ends_with_the_first_token_by_which_its_text_holds_a_stop_text(tokens: list[int], text: str):
    stop = Stop(texts=(text,), decode=decoded)
    for length in range(1, len(tokens) + 1):
        holds = text in decoded(tokens[:length])
        assert stop.ends(tokens[:length]) == holds
        if holds:
            break
