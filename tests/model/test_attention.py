import pytest
import torch
from torch import Tensor

from foundation_core.model.attention import Attention, Reading, Store, attend, attend_fast
from foundation_core.model.layout import PADDING, AttentionMask, Layout, attention_mask, memory_mask, sequential
from foundation_core.model.positions import ALiBi

B, H, T, E = 2, 4, 24, 8
SEGMENT = (torch.arange(T) // 7).expand(B, T)
PACKED = attention_mask(Layout(SEGMENT, SEGMENT), Layout(SEGMENT, SEGMENT), causal=True)
CAUSAL, FULL = AttentionMask(causal=True), AttentionMask()
DISTANCE = ALiBi(H)(SEGMENT[:1] * 0 + torch.arange(T), SEGMENT[:1] * 0 + torch.arange(T))
MASKS = {
    "causal": CAUSAL, "full": FULL, "packed": PACKED, "full with bias": FULL.with_bias(DISTANCE),
    "causal with bias": CAUSAL.with_bias(DISTANCE), "packed with bias": PACKED.with_bias(DISTANCE),
}  # fmt: skip
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())


def random_heads(heads: int, seed: int) -> Tensor:
    return torch.randn(B, heads, T, E, generator=torch.Generator().manual_seed(seed))


def written_out(mask: AttentionMask) -> Tensor:
    everything = torch.ones(T, T, dtype=torch.bool)
    if mask.bias is not None:
        return mask.bias > float("-inf")
    if mask.allowed is not None:
        return mask.allowed
    return everything.tril() if mask.causal else everything


def bias_of(mask: AttentionMask) -> Tensor | None:
    return None if mask.bias is None else DISTANCE


@every_mask
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_fast_kernel_equals_the_definition_forward_and_backward(mask: AttentionMask, kv_heads: int):
    shapes = [(H, 0), (kv_heads, 1), (kv_heads, 2)]
    fast, plain = ([random_heads(*shape).requires_grad_() for shape in shapes] for _ in range(2))
    weight = random_heads(H, 3)
    q, k, v = plain
    repeated = [x.repeat_interleave(H // kv_heads, dim=1) for x in (k, v)]
    found, expected = attend_fast(*fast, mask), attend(q, *repeated, written_out(mask), bias_of(mask))
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)  # measured: 5e-7
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-5)  # measured: 2e-6


def test_the_comparison_with_the_definition_notices_a_missing_mask_and_a_missing_bias():
    q, k, v = (random_heads(H, seed) for seed in range(3))
    assert (attend_fast(q, k, v, FULL) - attend(q, k, v, written_out(CAUSAL))).abs().max() > 0.1
    assert (attend_fast(q, k, v, FULL) - attend(q, k, v, written_out(FULL), DISTANCE)).abs().max() > 0.1


@every_mask
def test_the_weights_of_a_query_sum_to_one_and_are_zero_where_it_may_not_read(mask: AttentionMask):
    q, k = random_heads(H, 0), random_heads(H, 1)
    weights = attend(q, k, torch.eye(T).expand(B, H, -1, -1), written_out(mask), bias_of(mask))  # of the values 0 and 1
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, T))
    assert weights[~written_out(mask).expand_as(weights)].abs().sum() == 0
    fast = attend_fast(q, k, torch.eye(T).expand(B, H, -1, -1), mask)
    torch.testing.assert_close(fast, weights, rtol=0, atol=2e-6)  # measured: 3e-7


@every_mask
def test_bfloat16_on_a_cpu_follows_the_definition_as_closely_as_its_eight_bits_allow(mask: AttentionMask):
    q, k, v = random_heads(H, 0), random_heads(2, 1), random_heads(2, 2)
    found = attend_fast(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask).float()
    torch.testing.assert_close(found, attend_fast(q, k, v, mask), rtol=0, atol=3e-2)  # measured: 1.2e-2


def test_grouped_heads_equal_full_attention_with_repeated_heads():
    width, x = H * E, torch.randn(B, T, H * E, generator=torch.Generator().manual_seed(0))
    grouped, full = Attention(width, H, kv_heads=2, bias=True), Attention(width, H, bias=True)
    state = grouped.state_dict()
    for name in ("key", "value"):
        for kind in ("weight", "bias"):
            heads = state[f"{name}.{kind}"].unflatten(0, (2, E))
            state[f"{name}.{kind}"] = heads.repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(state)
    reading = Reading(CAUSAL)
    torch.testing.assert_close(grouped(x, reading), full(x, reading), rtol=0, atol=1e-6)  # measured: 0

    state["key.weight"] = state["key.weight"].flip(0)  # the heads in another order are another model
    full.load_state_dict(state)
    assert (grouped(x, reading) - full(x, reading)).abs().max() > 1e-2


def test_a_store_gives_back_all_it_was_given_in_order():
    store, keys, values = Store(capacity_tokens=T), random_heads(2, 1), random_heads(2, 2)
    for piece in (slice(0, 5), slice(5, 6), slice(6, T)):
        k, v = store.append(keys[:, :, piece], values[:, :, piece])
        assert torch.equal(k, keys[:, :, : piece.stop])
        assert torch.equal(v, values[:, :, : piece.stop])


def test_a_row_read_in_parts_equals_the_row_read_at_once():
    attention, x = Attention(H * E, H), torch.randn(B, T, H * E, generator=torch.Generator().manual_seed(0))
    layout = sequential(x)
    whole = attention(x, Reading(attention_mask(layout, layout, causal=True)))
    store, parts, read = Store(T), [], None
    for piece in (slice(0, 10), slice(10, 11), slice(11, T)):
        now = Layout(layout.position[:, piece])
        read = now if read is None else read.then(now)
        parts.append(attention(x[:, piece], Reading(attention_mask(now, read, causal=True)), store))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-6)  # measured: 6e-8


def test_a_row_reads_of_a_memory_what_has_its_segment_and_padding_never_spoils_a_number():
    attention = Attention(H * E, H, source_width=10)
    x, memory = torch.randn(B, 5, H * E), torch.randn(B, 7, 10)
    place = torch.arange(7).expand(B, -1)
    source = Layout(place, torch.tensor([[0, 0, 0, 1, 1, PADDING, PADDING], [0] * 7]))
    query = Layout(place[:, :5], torch.tensor([[0, 0, 1, 1, PADDING], [0, 0, 0, PADDING, PADDING]]))

    def read(memory: Tensor) -> Tensor:
        return attention(x, Reading(memory_mask(query, source), memory=memory))

    before = read(memory)
    assert before.isfinite().all()
    for edited, readers in (([0, 1, 2], [0, 1]), ([3, 4], [2, 3])):
        changed = memory.clone()
        changed[0, edited] += 1
        moved = (read(changed) - before)[0].abs().amax(dim=-1) > 1e-4
        assert moved.tolist()[:4] == [place in readers for place in range(4)]
