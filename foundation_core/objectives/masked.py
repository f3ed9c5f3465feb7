"""Objectives that hide a part of a text and predict it from all the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_core.errors import ConfigError
from foundation_core.fitting import TEXT_FRACTION, Spans, span_misfits
from foundation_core.model.layout import PADDING, Layout
from foundation_core.objectives.base import ALONE, IGNORE, Example, Objective, Ranks, Request, SpecialTokens
from foundation_core.objectives.keyed import uniform
from foundation_core.objectives.language import summed_nats

_BY_MASK, _BY_ANOTHER = 0.8, 0.1
"""Of the chosen tokens so many become the mask and so many any token; the rest stay, so that a model cannot tell what
it is asked by looking for masks. Source: Devlin et al. 2019, BERT, section 3.1."""


class MaskedToken(Objective):
    """Predict tokens that were hidden from what stands on both sides.

    Args:
        fraction: share of tokens that are chosen.
        whole_words: choose words, with all their tokens, and not tokens.
    """

    reads_both_ways = True

    def __init__(self, tokens: SpecialTokens, fraction: float = TEXT_FRACTION, whole_words: bool = False) -> None:
        self.tokens, self.mask, self.fraction = tokens, tokens.need("mask"), fraction
        self.word_edges = tokens.word_edges if whole_words else None

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """The first T tokens, some of them hidden; the hidden ones are the labels.

        Args:
            batch: tokens, segment and position, each (N, T + 1), and sample.
        """
        tokens_BT, segment_BT = batch["tokens"][:, :-1], batch["segment"][:, :-1]
        sample, T = batch["sample"], tokens_BT.shape[1]
        draw_BT = uniform(seed, "chosen", sample, T)
        if self.word_edges is not None:
            draw_BT = draw_BT.gather(1, first_of_word(tokens_BT, segment_BT, self.word_edges))
        is_text_BT = (segment_BT != PADDING) & (tokens_BT != self.tokens.end)
        chosen_BT = (draw_BT < self.fraction) & is_text_BT
        how_BT = uniform(seed, "how", sample, T)
        another_BT = (uniform(seed, "another", sample, T) * self.tokens.vocabulary).long()
        hidden_BT = torch.where(how_BT < _BY_MASK, self.mask, tokens_BT)
        hidden_BT = torch.where((how_BT >= _BY_MASK) & (how_BT < _BY_MASK + _BY_ANOTHER), another_BT, hidden_BT)
        layout = Layout(batch["position"][:, :-1], segment_BT)
        return Example(
            {"inputs": torch.where(chosen_BT, hidden_BT, tokens_BT), "layout": layout},
            torch.where(chosen_BT, tokens_BT, IGNORE),
            chosen_BT.sum(),
        )

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """float32 scalar: the sum of -log p(hidden token), in nats."""
        loss: Tensor = model(**example.inputs, finish=summed_nats(example.labels))
        return loss


def first_of_word(tokens_BT: Tensor, segment_BT: Tensor, word_edges: Tensor) -> Tensor:
    """(B, T) for each token the place of the first token of its word.

    Args:
        word_edges: (V, 2) whether a token's first and its last character are of a word: a token whose first is goes on
            with the word of the token before it, if that one's last is too.
    """
    place_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand_as(tokens_BT)
    another_document = F.pad(segment_BT[:, 1:] != segment_BT[:, :-1], (1, 0), value=True)
    edges_BT2 = word_edges.to(tokens_BT.device)[tokens_BT]
    goes_on_BT = edges_BT2[..., 0] & F.pad(edges_BT2[:, :-1, 1], (1, 0))
    begins_BT = ~goes_on_BT | another_document
    return torch.where(begins_BT, place_BT, 0).cummax(dim=1).values


class _Row(NamedTuple):
    """One text, cut into what is read and what is asked, with the document that each token belongs to."""

    source: Tensor
    source_segment: Tensor
    target: Tensor
    target_segment: Tensor


class SpanCorruption(Objective):
    """Write the spans that were cut out of a text, each behind the sentinel that stands in its place.

        text      the first of the three cat s sat
        source    the <0> three <1> sat
        target    <0> first of the <1> cat s <end>

    Args:
        fraction: share of tokens that are cut out.
        span_tokens: mean length of a span.

    Source: Raffel et al. 2020, T5, section 3.1.4. A span that would reach into the next document of its row ends
    where its own ends, no document reads another, and the spans of each are closed by an end token of their own.
    """

    def __init__(self, tokens: SpecialTokens, fraction: float = TEXT_FRACTION, span_tokens: float = 3.0) -> None:
        self.tokens, self.start, self.sentinels = tokens, tokens.need("start"), tokens.need_sentinels()
        self.fraction, self.span_tokens = fraction, span_tokens

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """The text with sentinels as source; the spans, moved by one, as input and label.

        Args:
            batch: tokens and segment, each (N, T + 1), and sample.

        Raises:
            ConfigError: rows of this length have more spans than there are sentinels; see `fit`.
        """
        tokens_BT, segment_BT = batch["tokens"][:, :-1], batch["segment"][:, :-1]
        self.fit(tokens_BT.shape[1])
        draw_B2T = uniform(seed, "spans", batch["sample"], 2 * tokens_BT.shape[1]).view(len(tokens_BT), 2, -1)
        rows = [self._row(*row) for row in zip(tokens_BT, segment_BT, draw_B2T, strict=True)]
        source, source_segment = padded([r.source for r in rows], 0), padded([r.source_segment for r in rows], PADDING)
        target, target_segment = padded([r.target for r in rows], 0), padded([r.target_segment for r in rows], PADDING)
        begins = F.pad(target_segment[:, 1:] != target_segment[:, :-1], (1, 0), value=True)
        inputs = torch.where(begins, self.start, F.pad(target[:, :-1], (1, 0)))
        labels = target.masked_fill(target_segment == PADDING, IGNORE)
        return Example(
            {
                "source": source,
                "inputs": inputs,
                "source_layout": Layout(place_in_segment(source_segment), source_segment),
                "layout": Layout(place_in_segment(target_segment), target_segment),
            },
            labels,
            (labels != IGNORE).sum(),
        )

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """float32 scalar: the sum of -log p(token of a span), in nats."""
        loss: Tensor = model(**example.inputs, finish=summed_nats(example.labels))
        return loss

    def _row(self, tokens: Tensor, segment: Tensor, draw_2T: Tensor) -> _Row:
        is_there = segment != PADDING  # padding may stand between documents, where one is hidden
        tokens, segment = tokens[is_there], segment[is_there]
        length = len(tokens)
        if length < 2:
            return _Row(tokens, segment, tokens[:0], segment[:0])
        cut, spans = Spans.of(length, self.fraction, self.span_tokens)
        kept_S, cut_S = random_parts(length - cut, spans, draw_2T[0]), random_parts(cut, spans, draw_2T[1])
        number = torch.arange(spans, device=tokens.device)
        runs_2S = torch.stack([kept_S, cut_S], dim=1).flatten()
        span = number.repeat_interleave(kept_S + cut_S)  # the kept tokens before a span have its number too
        is_cut = torch.tensor([False, True], device=tokens.device).repeat(spans).repeat_interleave(runs_2S)
        first_S = (kept_S + cut_S).cumsum(0) - cut_S
        is_cut &= segment == segment[first_S][span]
        is_first = torch.zeros_like(is_cut)
        is_first[first_S] = True
        sentinel = torch.tensor(self.sentinels[:spans], device=tokens.device)
        read = ~is_cut | is_first
        source = torch.where(is_first, sentinel[span], tokens)[read]
        cut_segment = segment[is_cut]
        is_last = F.pad(cut_segment[1:] != cut_segment[:-1], (0, 1), value=True)
        end = torch.full_like(tokens, self.tokens.end)
        # A sentinel before each token and an end behind it; of these stay a span's first and a document's last.
        asked = torch.stack([sentinel[span], tokens, end], dim=1)[is_cut]
        keep = torch.stack([is_first[is_cut], torch.ones_like(is_last), is_last], dim=1)
        return _Row(source, segment[read], asked[keep], cut_segment[:, None].expand(-1, 3)[keep])

    def fit(self, tokens: int) -> None:
        """Refuse rows of so many tokens that have more spans than there are sentinels, or ask for more than they hold
        where one document fills them. In a packed row each has an end of its own; that these may make its target longer
        is not refused.

        Raises:
            ConfigError: so it is.
        """
        if tokens < 2:
            return
        spans = Spans.of(tokens, self.fraction, self.span_tokens)
        if problems := list(span_misfits(spans, tokens, len(self.sentinels))):
            raise ConfigError("; ".join(problems), fix="change one of the fields that are named")


def random_parts(total: int, parts: int, draw: Tensor) -> Tensor:
    """(parts,) lengths of at least 1 that sum to the total; every way to cut it is as probable."""
    cuts = draw[: total - 1].argsort()[: parts - 1].sort().values + 1
    ends = torch.cat([cuts, torch.tensor([total], device=draw.device)])
    return torch.diff(ends, prepend=ends.new_zeros(1))


def padded(rows: Sequence[Tensor], value: int) -> Tensor:
    """(B, T) the rows, filled up behind to the longest."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def place_in_segment(segment_BT: Tensor) -> Tensor:
    """(B, T) the place of each token among those of its segment, which stand side by side; from 0."""
    place_BT = torch.arange(segment_BT.shape[1], device=segment_BT.device).expand_as(segment_BT)
    begins_BT = F.pad(segment_BT[:, 1:] != segment_BT[:, :-1], (1, 0), value=True)
    return place_BT - torch.where(begins_BT, place_BT, 0).cummax(dim=1).values


def masked_token(request: Request) -> MaskedToken:
    """The objective `masked_token`."""
    tokens, masking = request.need_tokens(), request.masking
    if masking.whole_words and tokens.word_edges is None:
        raise ConfigError("nothing tells where words begin", fix="set masking.whole_words to false")
    return MaskedToken(tokens, masking.of_text, masking.whole_words)


def span_corruption(request: Request) -> SpanCorruption:
    """The objective `span_corruption`."""
    masking = request.masking
    return SpanCorruption(request.need_tokens(), masking.of_text, masking.span_tokens)
