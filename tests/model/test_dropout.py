"""What dropout drops and when: on branches, of what enters the blocks, of attention weights; in training alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foundation_core.model.attention import Attention, Reading, attend, attend_fast
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import AttentionMask
from foundation_core.model.transformer import Reader, Transformer
from foundation_core.objectives.base import Example
from foundation_core.specs import ModelSpec
from tests.golden.test_family_losses import FAMILIES, LIGHT, TRUNK, batch
from tests.model.test_attention import B, H, T, bias_of, every_mask, random_heads, written_out

RATE = 0.3
FIELDS = ("dropout", "embedding_dropout", "attention_dropout")


@every_mask
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_fast_kernel_drops_the_weights_that_the_definition_drops(mask: AttentionMask, kv_heads: int):
    q, k, v = random_heads(H, 0), random_heads(kv_heads, 1), random_heads(kv_heads, 2)
    repeated = [x.repeat_interleave(H // kv_heads, dim=1) for x in (k, v)]
    torch.manual_seed(0)
    found = attend_fast(q, k, v, mask, RATE)
    torch.manual_seed(0)
    expected = attend(q, *repeated, written_out(mask), bias_of(mask), RATE)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)  # measured: 7e-7
    assert (found - attend_fast(q, k, v, mask)).abs().max() > 0.1, "control: nothing was dropped"


def test_a_share_of_the_weights_is_dropped_and_the_others_grow_by_as_much():
    q, k, everything = random_heads(H, 0), random_heads(H, 1), torch.ones(T, T, dtype=torch.bool)
    whole = attend(q, k, torch.eye(T).expand(B, H, -1, -1), everything)  # of values 0 and 1: the weights themselves
    torch.manual_seed(0)
    left = attend(q, k, torch.eye(T).expand(B, H, -1, -1), everything, dropout=RATE)
    assert abs((left == 0).float().mean() - RATE) < 0.02
    torch.testing.assert_close(left[left > 0], whole[left > 0] / (1 - RATE))


def test_attention_drops_in_training_alone():
    part, x = Attention(32, H, dropout=RATE), torch.randn(B, T, 32, generator=torch.Generator().manual_seed(0))
    plain = Attention(32, H)
    plain.load_state_dict(part.state_dict())
    reading = Reading(AttentionMask(causal=True))
    assert (part.train()(x, reading) - plain(x, reading)).abs().max() > 1e-2
    assert torch.equal(part.eval()(x, reading), plain(x, reading))


def asked(name: str, **dropouts: float) -> tuple[Reader, Example]:
    family = FAMILIES[name]
    trunk, second = (side.model_copy(update=dropouts) for side in (TRUNK, LIGHT))
    made = {"trunk": trunk, "context_tokens": 32, **family.model}
    if "second_trunk" in made:
        made["second_trunk"] = second
    if made["trunk"] is not trunk:
        made["trunk"] = made["trunk"].model_copy(update=dropouts)
    model = initialize(build(ModelSpec(**made), family.shape), seed=0)
    return model, family.objective.prepare(batch(0, family.shape), 0)


def loss_of(name: str, model: Reader, example: Example) -> Tensor:
    torch.manual_seed(0)
    return FAMILIES[name].objective.loss(model, example)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("field", FIELDS)
def test_every_family_drops_what_its_trunks_say_in_training_and_nothing_else(name: str, field: str):
    plain, example = asked(name)
    model, _ = asked(name, **{field: RATE})
    undisturbed = loss_of(name, plain.eval(), example)
    assert torch.equal(loss_of(name, model.eval(), example), undisturbed)
    assert not torch.equal(loss_of(name, model.train(), example), undisturbed)
    for part in model.modules():
        if isinstance(part, Transformer):
            assert part.dropout.p == (RATE if field == "embedding_dropout" else 0)
        if isinstance(part, Attention):
            assert part.dropout == (RATE if field == "attention_dropout" else 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_without_dropout_training_computes_what_evaluation_does_and_draws_nothing(name: str):
    model, example = asked(name)
    undisturbed, before = loss_of(name, model.eval(), example), torch.get_rng_state()
    assert torch.equal(loss_of(name, model.train(), example), undisturbed)
    assert torch.equal(torch.get_rng_state(), before)
