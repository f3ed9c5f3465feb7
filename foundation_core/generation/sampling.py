"""How the next token is chosen from its logits, and when a row ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foundation_core.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """What a token is drawn from.

    Args:
        temperature: 0 takes the most probable token; above, the logits are divided by it.
        top_k: how many of the most probable tokens are drawn from. None: all.
        top_p: of these, the fewest most probable ones that together have this share (Holtzman et al. 2020).
        min_p: of these, the ones at least so probable as this share of the most probable (Nguyen et al. 2024).
        repetition_penalty: logits of tokens that the row holds already are divided by it, or multiplied where negative
            (Keskar et al. 2019, section 4.1).

    Raises:
        ConfigError: a value that leaves nothing to draw from, or means nothing.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        wrong = [
            f"{name}={getattr(self, name)} ({allowed})"
            for name, allowed, right in (
                ("temperature", "0 or more", self.temperature >= 0),
                ("top_k", "1 or more", self.top_k is None or self.top_k >= 1),
                ("top_p", "above 0, up to 1", 0 < self.top_p <= 1),
                ("min_p", "0 to 1", 0 <= self.min_p <= 1),
                ("repetition_penalty", "above 0", self.repetition_penalty > 0),
            )
            if not right
        ]
        if wrong:
            raise ConfigError(f"tokens cannot be drawn with {', '.join(wrong)}", fix="take a value that is allowed")

    def choose(self, logits_BV: Tensor, draw_B: Tensor, seen_BV: Tensor | None = None) -> Tensor:
        """(B,) a token per row: where a number drawn from 0 to 1 falls among the candidates' shares, the largest first.

        Args:
            logits_BV: float32.
            draw_B: from 0 to 1.
            seen_BV: True for the tokens that the row holds already, which are penalised. None: no one looked.
        """
        if seen_BV is not None:
            factor_BV = torch.where(logits_BV > 0, 1 / self.repetition_penalty, self.repetition_penalty)
            logits_BV = torch.where(seen_BV, logits_BV * factor_BV, logits_BV)
        if self.temperature == 0:
            return _best(logits_BV)
        candidates = logits_BV.shape[-1] if self.top_k is None else min(self.top_k, logits_BV.shape[-1])
        best_BC, token_BC = logits_BV.topk(candidates, dim=-1)
        share_BC = (best_BC / self.temperature).softmax(dim=-1)
        reached_BC = share_BC.cumsum(dim=-1)
        if self.top_p < 1 or self.min_p > 0:
            kept_BC = (reached_BC - share_BC < self.top_p) & (share_BC >= self.min_p * share_BC[:, :1])
            last_B1 = kept_BC.sum(dim=-1, keepdim=True) - 1  # what is kept stands in front
            draw_B = draw_B * reached_BC.take_along_dim(last_B1, dim=-1)[:, 0]
        else:
            last_B1 = torch.full_like(token_BC[:, :1], candidates - 1)  # rounding may end the sum below 1
        rank_B1 = (reached_BC < draw_B[:, None]).sum(dim=-1, keepdim=True).minimum(last_B1)
        return token_BC.take_along_dim(rank_B1, dim=-1)[:, 0]


def _best(logits_BV: Tensor) -> Tensor:
    """(B,) the most probable token.

    Row by row on a CPU: torch would share many rows out among threads, which then look for more to do for as long as
    a compiled step takes, on the processors that it computes with.
    """
    if logits_BV.device.type != "cpu":
        return logits_BV.argmax(dim=-1)
    return torch.stack([logits_V.argmax() for logits_V in logits_BV])


@dataclass(frozen=True)
class Stop:
    """When a row ends before its last token; what ends it is kept.

    Args:
        end_token: ends a row. None: nothing does.
        texts: each ends a row as soon as what was written holds it.
        decode: tokens -> text; needed for `texts`.
    """

    end_token: int | None = None
    texts: tuple[str, ...] = ()
    decode: Callable[[Sequence[int]], str] | None = None

    def __post_init__(self) -> None:
        if self.texts and (self.decode is None or not all(self.texts)):
            raise ConfigError("stop texts need a way to decode tokens, and each a character", fix="pass decode")

    def ends(self, written: Sequence[int]) -> bool:
        """Whether the newest token ends the row."""
        if written[-1] == self.end_token:
            return True
        if self.decode is None or not self.texts:
            return False
        tail = self._tail(written, max(map(len, self.texts)))
        return any(text in tail for text in self.texts)

    def _tail(self, written: Sequence[int], characters: int) -> str:
        """The end of the text: the newest token, and at least so many characters before it, if there are.

        A character has four bytes at the most. A token has one at the least, or none: special tokens are no text, so
        how far back the characters reach is seen only when they are decoded.
        """
        assert self.decode is not None, "asked only where there are stop texts"
        tokens = 4 * characters
        # where a piece begins within a character, its bytes become up to three others
        while tokens < len(written) and len(self.decode(written[-tokens:-1])) < characters + 3:
            tokens *= 2
        return self.decode(written[-tokens:])
