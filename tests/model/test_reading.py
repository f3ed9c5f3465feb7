"""Who reads whom, shown on whole models: the mask is what hides, positions are what tells the order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import PADDING, Layout
from foundation_core.model.transformer import Model
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

VOCABULARY, T = 61, 20
TOKENS = torch.randint(0, VOCABULARY, (2, T), generator=torch.Generator().manual_seed(0))
PLACE = torch.arange(T).expand(2, -1)
SHUFFLED = torch.randperm(T, generator=torch.Generator().manual_seed(1))
POSITIONS = ["rotary", "learned", "sinusoidal", "alibi", "relative", "none"]
every_position = pytest.mark.parametrize("position", POSITIONS)


def made(family: str, position: str) -> Model:
    trunk = TrunkSpec.model_validate({"width": 32, "depth": 2, "heads": 4, "position": position})
    spec = ModelSpec(family=family, trunk=trunk, context_tokens=T)
    model = initialize(build(spec, SampleShape(vocabulary=VOCABULARY)), 0)
    with torch.no_grad():  # fresh attention is near uniform, and hardly tells tokens apart
        for parameter in model.trunk.parameters():
            parameter.mul_(2.0)
    assert isinstance(model, Model)
    return model.eval()


def edited(place: int) -> Tensor:
    tokens = TOKENS.clone()
    tokens[:, place] = (tokens[:, place] + 1) % VOCABULARY
    return tokens


@every_position
def test_the_future_is_hidden_by_the_mask_and_not_by_the_positions(position: str):
    model = made("decoder", position)
    before, after = model(TOKENS), model(edited(12))
    assert torch.equal(before[:, :12], after[:, :12])
    model.trunk.causal = False  # the same positions, without the mask
    before, after = model(TOKENS), model(edited(12))
    assert (before[:, :12] - after[:, :12]).abs().amax(dim=(0, 2)).min() > 1e-5


@every_position
def test_without_positions_a_permuted_input_gives_the_permuted_output_and_with_them_it_does_not(position: str):
    model = made("encoder", position)
    difference = (model(TOKENS[:, SHUFFLED]) - model(TOKENS)[:, SHUFFLED]).abs().max()
    if position == "none":
        assert difference < 2e-5  # measured: 5e-6
    else:
        assert difference > 1e-2


def test_a_causal_trunk_without_positions_still_tells_the_order_by_what_each_token_may_read():
    model = made("decoder", "none")
    assert (model(TOKENS[:, SHUFFLED]) - model(TOKENS)[:, SHUFFLED]).abs().max() > 1e-2


@every_position
def test_a_prefix_reads_itself_both_ways_and_never_what_follows(position: str):
    model = made("decoder", position)
    layout = Layout(PLACE, order=(PLACE - 7).clamp(min=0))  # 8 tokens of one order, then one by one
    before = model(TOKENS, layout)
    inside, behind = model(edited(7), layout), model(edited(12), layout)
    assert (before[:, 0] - inside[:, 0]).abs().amax(dim=-1).min() > 1e-5
    assert torch.equal(before[:, :12], behind[:, :12])
    assert not torch.equal(model(TOKENS)[:, :7], before[:, :7])


@every_position
@pytest.mark.parametrize("family", ["decoder", "encoder"])
def test_padding_is_never_read(family: str, position: str):
    model = made(family, position)
    layout = Layout(PLACE, torch.where(PLACE < 15, 0, PADDING))
    assert torch.equal(model(TOKENS, layout)[:, :15], model(edited(17), layout)[:, :15])
    torch.testing.assert_close(
        model(TOKENS, layout)[:, :15], model(TOKENS[:, :15]), rtol=0, atol=2e-5
    )  # measured: 5e-6
    if family == "encoder":
        assert (model(TOKENS) - model(edited(17)))[:, :15].abs().max() > 1e-5


@every_position
def test_one_forward_of_a_row_equals_a_forward_of_each_of_its_prefixes(position: str):
    model = made("decoder", position)
    whole = model(TOKENS)
    prefixes = torch.stack([model(TOKENS[:, :length])[:, -1] for length in range(1, T + 1)], dim=1)
    torch.testing.assert_close(whole, prefixes, rtol=0, atol=2e-5)  # measured: 5e-6
    torch.testing.assert_close(whole.softmax(-1).sum(-1), torch.ones(2, T))
