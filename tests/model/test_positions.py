import pytest
import torch

from foundation_core.model.positions import ALiBi, Learned, RelativeBias, Rotary, Sinusoidal, SinusoidalGrid, rotate

POSITION = torch.arange(40)[None]


def random_heads(seed: int, tokens: int = 40) -> torch.Tensor:
    return torch.randn(1, 2, tokens, 16, generator=torch.Generator().manual_seed(seed))


def test_a_rotary_match_depends_on_the_distance_of_the_tokens_only():
    rotary, q, k = Rotary(16), random_heads(0), random_heads(1)

    def match(shift: int) -> torch.Tensor:
        return rotate(q, rotary(POSITION + shift)) @ rotate(k, rotary(POSITION + shift)).transpose(-2, -1)

    torch.testing.assert_close(match(1000), match(0), rtol=0, atol=2e-3)  # measured: 3e-4, float32 angles of 1000
    torch.testing.assert_close(match(7), match(0), rtol=0, atol=2e-5)  # measured: 7e-6

    moved = rotate(q, rotary(POSITION + 7)) @ rotate(k, rotary(POSITION)).transpose(-2, -1)
    assert (moved - match(0)).abs().max() > 1


def test_turning_keeps_the_length_of_every_vector_and_leaves_position_0_alone():
    x = random_heads(0)
    turned = rotate(x, Rotary(16)(POSITION))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert not torch.equal(turned[:, :, 1], x[:, :, 1])


def test_a_cast_of_the_model_to_bfloat16_leaves_the_angles_exact():
    rotary = Rotary(16)
    before = rotary(POSITION)
    after = rotary.bfloat16()(POSITION)
    assert torch.equal(before.cos, after.cos)
    assert torch.equal(before.sin, after.sin)


def test_learned_positions_are_rows_of_a_table():
    learned = Learned(context_tokens=40, width=6)
    assert torch.equal(learned(POSITION.flip(1)), learned.table.weight.flip(0)[None])


def test_sinusoidal_positions_are_those_of_attention_is_all_you_need():
    """Vaswani and others, 2017, section 3.5: PE(pos, 2i) = sin(pos / 10000^(2i / d)), PE(pos, 2i + 1) = cos(same)."""
    width = 16
    angles = POSITION[0][:, None].double() / 10_000 ** (torch.arange(0, width, 2).double() / width)
    published = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    halves = torch.cat([published[:, 0::2], published[:, 1::2]], dim=1)  # here sines come first, then cosines
    found = Sinusoidal(width, amplitude=1.0)(POSITION)[0].double()
    torch.testing.assert_close(found, halves, rtol=0, atol=1e-5)
    assert (Sinusoidal(width, amplitude=1.0, base=1000.0)(POSITION)[0] - halves).abs().max() > 0.1


def test_sinusoidal_positions_differ_and_a_step_is_the_same_turn_everywhere():
    waves = Sinusoidal(width=16, amplitude=0.5)(POSITION)[0]
    torch.testing.assert_close(waves.norm(dim=-1), torch.full((40,), 0.5 * 8**0.5))
    assert torch.cdist(waves, waves).fill_diagonal_(1.0).min() > 0.1
    products = waves @ waves.T
    torch.testing.assert_close(products[3:, 3:], products[:-3, :-3], rtol=0, atol=1e-5)


def test_a_grid_tells_rows_by_one_half_of_the_features_and_columns_by_the_other():
    waves = SinusoidalGrid(width=16, columns=5, amplitude=1.0)(POSITION)[0].unflatten(0, (8, 5))
    for features, axis in ((waves[..., :8], 1), (waves[..., 8:], 0)):
        assert (features - features.select(axis, 0).unsqueeze(axis)).abs().max() == 0
        line = features.select(axis, 0)
        assert torch.cdist(line, line).fill_diagonal_(1.0).min() > 0.1


def test_alibi_lowers_scores_in_proportion_to_the_distance_by_slopes_that_halve():
    bias = ALiBi(8)(POSITION, POSITION)[0]
    distance = (POSITION[0][:, None] - POSITION[0]).abs()
    for head in range(8):
        torch.testing.assert_close(bias[head], -distance / 2.0 ** (head + 1))


def test_alibi_takes_the_slopes_between_for_a_number_of_heads_that_is_no_power_of_two():
    # The slopes of the paper's code: those of 4 heads, and every second one of 8.
    assert ALiBi(6).slopes == [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]


def test_relative_buckets_are_those_of_t5():
    transformers = pytest.importorskip("transformers")
    theirs = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket
    ahead = torch.arange(-300, 301)
    for both_ways in (True, False):
        found = RelativeBias(2, both_ways=both_ways, buckets=32, farthest=128).bucket(ahead)
        assert torch.equal(found, theirs(ahead, bidirectional=both_ways, num_buckets=32, max_distance=128))
        assert len(found.unique()) == (31 if both_ways else 32)


def test_rows_of_the_same_positions_share_one_bias_and_rows_of_others_have_their_own():
    same, own = POSITION.expand(3, -1), POSITION.repeat(3, 1)
    for part in (ALiBi(4), RelativeBias(4, both_ways=True)):
        assert part(same, same).shape == (1, 4, 40, 40)
        torch.testing.assert_close(part(own, own), part(same, same).expand(3, -1, -1, -1), rtol=0, atol=0)
        assert not torch.equal(part(own, own * 2), part(own, own))
