import pytest
import torch
from torch import Tensor

from foundation_core.model.attention import Attention, Reading, Store, attend, attend_fast
from foundation_core.model.layout import AttentionMask, Layout, attention_mask, sequential

B, H, T, E = 2, 4, 24, 8
SEGMENT = (torch.arange(T) // 7).expand(B, T)
PACKED = attention_mask(Layout(SEGMENT, SEGMENT), Layout(SEGMENT, SEGMENT), causal=True)
CAUSAL, FULL = AttentionMask(causal=True), AttentionMask()


def random_heads(heads: int, seed: int) -> Tensor:
    return torch.randn(B, heads, T, E, generator=torch.Generator().manual_seed(seed))


def written_out(mask: AttentionMask) -> Tensor:
    everything = torch.ones(T, T, dtype=torch.bool)
    if mask.allowed is not None:
        return mask.allowed
    return everything.tril() if mask.causal else everything


@pytest.mark.parametrize("mask", [CAUSAL, FULL, PACKED], ids=["causal", "full", "packed"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_fast_kernel_equals_the_definition_forward_and_backward(mask: AttentionMask, kv_heads: int):
    shapes = [(H, 0), (kv_heads, 1), (kv_heads, 2)]
    fast, plain = ([random_heads(*shape).requires_grad_() for shape in shapes] for _ in range(2))
    weight = random_heads(H, 3)
    q, k, v = plain
    repeated = [x.repeat_interleave(H // kv_heads, dim=1) for x in (k, v)]
    found, expected = attend_fast(*fast, mask), attend(q, *repeated, written_out(mask))
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)  # measured: 5e-7
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-5)  # measured: 2e-6


def test_the_comparison_with_the_definition_notices_a_missing_mask():
    q, k, v = (random_heads(H, seed) for seed in range(3))
    difference = (attend_fast(q, k, v, FULL) - attend(q, k, v, written_out(CAUSAL))).abs().max()
    assert difference > 0.1


@pytest.mark.parametrize("mask", [CAUSAL, FULL, PACKED], ids=["causal", "full", "packed"])
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
