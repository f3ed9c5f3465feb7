"""Sums to one, one forward for all prefixes, and where a transformer's sense of order comes from."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from experiments.attention_seen import attention_seen
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.transformer import EncoderDecoder, Model
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

VOCABULARY, T = 61, 12
POSITIONS = [name for name in get_args(TrunkSpec.model_fields["position"].annotation) if name != "none"]
every_position = pytest.mark.parametrize("position", POSITIONS)


def fresh(family: str, **trunk: Any) -> Any:
    spec = ModelSpec(family=family, context_tokens=T, trunk=TrunkSpec(width=32, depth=2, heads=4, **trunk))
    return initialize(build(spec, SampleShape(vocabulary=VOCABULARY)), seed=3).eval()


def random_tokens(rows: int, seed: int) -> Tensor:
    return torch.randint(0, VOCABULARY, (rows, T), generator=torch.Generator().manual_seed(seed))


TOKENS = random_tokens(2, seed=0)
PERMUTATION = torch.randperm(T, generator=torch.Generator().manual_seed(1))


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


# ------------------------------------------------------------------------------------------------------ sums to one


@every_position
def test_every_attention_of_an_encoder_decoder_gives_each_token_weights_that_sum_to_one(position: str):
    model: EncoderDecoder = fresh("encoder_decoder", position=position)
    with attention_seen() as seen:
        model(TOKENS, TOKENS[:, :5])
    assert [tuple(weight.shape) for weight in seen] == 2 * [(2, 4, T, T)] + 2 * [(2, 4, 5, 5), (2, 4, 5, T)]
    for weight in seen:  # measured: 2.4e-7 from one
        assert weight.min() >= 0
        torch.testing.assert_close(weight.sum(dim=-1), torch.ones(weight.shape[:-1]), rtol=0, atol=1e-6)


def test_looking_at_attention_changes_nothing_and_ends_with_the_block():
    model: Model = fresh("decoder")
    plain = model(TOKENS)
    with attention_seen() as seen:
        assert torch.equal(model(TOKENS), plain)
    model(TOKENS)
    assert len(seen) == 2


def test_next_token_probabilities_sum_to_one_and_logits_do_not():
    logits_BTV = fresh("decoder")(TOKENS)
    torch.testing.assert_close(logits_BTV.softmax(dim=-1).sum(dim=-1), torch.ones(2, T), rtol=0, atol=1e-6)
    assert difference(logits_BTV.exp().sum(dim=-1), torch.ones(2, T)) > 10


# ---------------------------------------------------------------------------- one forward equals T prefix forwards


@pytest.mark.parametrize("position", [*POSITIONS, "none"])
def test_one_forward_gives_a_decoder_the_logits_of_t_forwards_of_its_prefixes(position: str):
    model: Model = fresh("decoder", position=position)
    prefixes = torch.stack([model(TOKENS[:, : t + 1])[:, -1] for t in range(T)], dim=1)
    torch.testing.assert_close(model(TOKENS), prefixes, rtol=0, atol=5e-6)  # measured: 7e-7


def test_it_does_not_for_an_encoder_whose_tokens_read_what_comes_after_them():
    model: Model = fresh("encoder")
    prefixes = torch.stack([model(TOKENS[:, : t + 1])[:, -1] for t in range(T)], dim=1)
    assert difference(model(TOKENS)[:, -1], prefixes[:, -1]) < 5e-6
    assert difference(model(TOKENS)[:, :-1], prefixes[:, :-1]) > 1e-2


# -------------------------------------------------------------------------------------- order comes from positions


def test_without_positions_permuting_the_input_permutes_the_output():
    model: Model = fresh("encoder", position="none")
    torch.testing.assert_close(model(TOKENS[:, PERMUTATION]), model(TOKENS)[:, PERMUTATION], rtol=0, atol=5e-6)


@every_position
def test_with_positions_it_does_not(position: str):
    model: Model = fresh("encoder", position=position)
    moved = difference(model(TOKENS[:, PERMUTATION]), model(TOKENS)[:, PERMUTATION])
    assert moved > 0.1  # measured: 0.38 and more; 6e-7 without positions


def test_a_causal_mask_alone_tells_the_order_too():
    model: Model = fresh("decoder", position="none")
    assert difference(model(TOKENS[:, PERMUTATION]), model(TOKENS)[:, PERMUTATION]) > 1e-2


def test_but_one_block_behind_the_mask_sees_a_set_only_and_two_see_an_order():
    earlier_exchanged = torch.tensor([*reversed(range(T - 1)), T - 1])
    for depth, sees_order in ((1, False), (2, True)):
        spec = ModelSpec(context_tokens=T, trunk=TrunkSpec(width=32, depth=depth, heads=4, position="none"))
        model = initialize(build(spec, SampleShape(vocabulary=VOCABULARY)), seed=3)
        moved = difference(model(TOKENS[:, earlier_exchanged])[:, -1], model(TOKENS)[:, -1])
        assert (moved > 1e-3) is sees_order, (depth, moved)


# ---------------------------------------------------------------------------- the future is hidden by the mask alone


@pytest.mark.parametrize("position", [*POSITIONS, "none"])
def test_with_the_mask_editing_the_future_leaves_earlier_logits_equal_to_the_bit_whatever_the_positions(position: str):
    model: Model = fresh("decoder", position=position)
    edited = TOKENS.clone()
    edited[:, 7:] = random_tokens(2, seed=2)[:, 7:]
    assert torch.equal(model(edited)[:, :7], model(TOKENS)[:, :7])
    assert difference(model(edited)[:, 7:], model(TOKENS)[:, 7:]) > 1e-2


@pytest.mark.parametrize("position", [*POSITIONS, "none"])
def test_without_the_mask_it_changes_them_whatever_the_positions(position: str):
    model: Model = fresh("decoder", position=position)
    model.trunk.causal = False
    edited = TOKENS.clone()
    edited[:, 7:] = random_tokens(2, seed=2)[:, 7:]
    assert difference(model(edited)[:, :7], model(TOKENS)[:, :7]) > 0.1  # measured: 0.54 and more
