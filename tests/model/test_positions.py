import torch

from foundation_core.model.positions import Learned, Rotary, Sinusoidal, rotate

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


def test_sinusoidal_positions_differ_and_a_step_is_the_same_turn_everywhere():
    waves = Sinusoidal(width=16, amplitude=0.5)(POSITION)[0]
    torch.testing.assert_close(waves.norm(dim=-1), torch.full((40,), 0.5 * 8**0.5))
    assert torch.cdist(waves, waves).fill_diagonal_(1.0).min() > 0.1
    products = waves @ waves.T
    torch.testing.assert_close(products[3:, 3:], products[:-3, :-3], rtol=0, atol=1e-5)
