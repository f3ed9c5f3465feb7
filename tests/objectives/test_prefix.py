"""A prefix is read whole and predicted never; what is behind it is predicted from all before."""

import torch

from foundation_core.model.layout import PADDING, attention_mask
from foundation_core.objectives.base import IGNORE
from foundation_core.objectives.language import NextToken, Prefix

ROWS, T = 64, 20
BATCH = {
    "tokens": torch.arange(ROWS * (T + 1)).view(ROWS, T + 1),
    "segment": torch.tensor([[0] * 9 + [1] * 8 + [PADDING] * 4]).repeat(ROWS, 1),
    "position": torch.tensor([[*range(9), *range(8), 0, 0, 0, 0]]).repeat(ROWS, 1),
    "sample": torch.arange(ROWS),
}


def test_the_labels_are_those_of_next_token_behind_each_prefix():
    plain, example = NextToken().prepare(BATCH, 0), Prefix().prepare(BATCH, 0)
    scored = example.labels != IGNORE
    assert torch.equal(example.labels[scored], plain.labels[scored])
    assert example.count == scored.sum()
    order, place = example.inputs["layout"].order, torch.arange(T).expand(ROWS, T)
    assert not scored[order > place].any(), "a token of a prefix was asked for"
    for first, last in ((0, 9), (9, 17)):
        prefix_tokens = 1 + (order[:, first:last] > place[:, first:last]).sum(1)
        assert set(prefix_tokens.tolist()) == set(range(1, last - first)), "every length occurs, and none is all"
        left = scored[:, first:last].sum(1)
        assert torch.equal(prefix_tokens + left, torch.full((ROWS,), last - first))


def test_prefix_tokens_read_each_other_and_nothing_else_that_is_later():
    layout = Prefix().prepare(BATCH, 0).inputs["layout"]
    allowed = attention_mask(layout, layout, causal=True).allowed[:, 0]
    place = torch.arange(T)
    later = place[None, :] > place[:, None]
    in_prefix = layout.order > place
    reads_later = allowed & later
    both = (layout.order[:, :, None] == layout.order[:, None, :]) & (layout.segment[:, :, None] != PADDING)
    assert torch.equal(reads_later & both, reads_later & (layout.segment[:, :, None] != PADDING))
    assert reads_later[in_prefix.any(1)].any(), "no prefix was read both ways"


def test_another_seed_draws_other_prefixes():
    first, second = (Prefix().prepare(BATCH, seed).inputs["layout"].order for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, Prefix().prepare(BATCH, 0).inputs["layout"].order)
