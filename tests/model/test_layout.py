from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from foundation_core.model.attention import Cache
from foundation_core.model.layout import PADDING, AttentionMask, Layout, attention_mask, sequential
from foundation_core.model.transformer import Model

PACKED = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [4, 4, 4, 4, 4, 4, PADDING, PADDING]])


def allowed_of(mask: AttentionMask) -> Tensor:
    assert mask.allowed is not None
    return mask.allowed[:, 0]


def by_hand(segment: Tensor, order: Tensor, causal: bool) -> Tensor:
    rows, length = segment.shape
    allowed = torch.zeros(rows, length, length, dtype=torch.bool)
    for row in range(rows):
        for query in range(length):
            for key in range(length):
                same = segment[row, query] == segment[row, key]
                allowed[row, query, key] = same and (not causal or order[row, key] <= order[row, query])
    return allowed


def test_one_document_without_padding_needs_no_mask_in_memory():
    layout = sequential(torch.zeros(2, 8))
    assert attention_mask(layout, layout, causal=True) == AttentionMask(None, causal=True)
    assert attention_mask(layout, layout, causal=False) == AttentionMask(None, causal=False)


def test_packed_documents_and_padding_follow_the_one_rule():
    layout = Layout(torch.zeros_like(PACKED), PACKED)
    row_order = torch.arange(8).expand(2, -1)
    for causal in (True, False):
        mask = attention_mask(layout, layout, causal=causal)
        assert torch.equal(allowed_of(mask), by_hand(PACKED, row_order, causal))


def test_every_token_reads_at_least_itself_so_that_no_softmax_is_empty():
    layout = Layout(torch.zeros_like(PACKED), PACKED)
    for causal in (True, False):
        assert allowed_of(attention_mask(layout, layout, causal=causal)).diagonal(dim1=1, dim2=2).all()


def test_tokens_of_one_order_are_a_prefix_that_reads_itself_both_ways():
    order = torch.tensor([[0, 0, 0, 1, 2, 3, 4, 5]])
    layout = Layout(torch.arange(8)[None], order=order)
    allowed = allowed_of(attention_mask(layout, layout, causal=True))
    assert torch.equal(allowed, by_hand(torch.zeros_like(order), order, causal=True))
    assert allowed[0, :3, :3].all()
    assert not allowed[0, 3, 4]


def test_a_row_read_in_two_parts_has_the_rows_of_the_whole_mask():
    for segment in (None, PACKED):
        whole = Layout(torch.arange(8).expand(2, -1), segment)
        first, second = (Layout(p, s) for p, s in zip(
            whole.position.split(5, dim=1), (None, None) if segment is None else segment.split(5, dim=1), strict=True
        ))  # fmt: skip
        joined = first.then(second)
        expected = by_hand(torch.zeros(2, 8) if segment is None else PACKED, torch.arange(8).expand(2, -1), causal=True)
        allowed = allowed_of(attention_mask(second, joined, causal=True))
        assert torch.equal(allowed.expand(2, -1, -1), expected[:, 5:])


@pytest.mark.parametrize("part", ["segment", "order"])
def test_what_a_cache_knows_of_a_row_is_not_forgotten_by_a_layout_that_does_not_say_it(
    tiny_decoder: Callable[..., Model], part: str
):
    model, place = tiny_decoder().eval(), torch.arange(3)[None]
    said = {"segment": torch.tensor([[PADDING, 0, 0]]), "order": torch.zeros(1, 3, dtype=torch.long)}[part]
    token, cache = torch.tensor([[7]]), Cache(2, 4)
    model(torch.tensor([[5, 6, 7]]), Layout(place, **{part: said}), cache)
    with pytest.raises(ValueError, match="goes on with a layout that has them too"):
        model(token, cache=cache)
    cache = Cache(2, 4)
    model(torch.tensor([[5, 6, 7]]), Layout(place), cache)
    assert model(token, cache=cache).shape == (1, 1, 61)  # control: there was nothing to forget
