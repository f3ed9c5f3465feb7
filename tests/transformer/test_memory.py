"""What a decoder reads of its encoder: a set of vectors, whose order they carry themselves."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from foundation_core.model.attention import Memory
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.transformer import EncoderDecoder
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

VOCABULARY, T = 61, 9
GENERATOR = torch.Generator().manual_seed(0)
SOURCE = torch.randint(0, VOCABULARY, (3, T), generator=GENERATOR)
TARGET = torch.randint(0, VOCABULARY, (3, 6), generator=GENERATOR)
PERMUTATION = torch.randperm(T, generator=GENERATOR)


def translator(position: str = "sinusoidal") -> EncoderDecoder:
    trunk = TrunkSpec(
        width=32, depth=2, heads=4, position=position, residual="post", norm="layer", feed="relu", bias=True
    )
    spec = ModelSpec(family="encoder_decoder", trunk=trunk, context_tokens=T)
    model = initialize(build(spec, SampleShape(vocabulary=VOCABULARY)), seed=1)
    assert isinstance(model, EncoderDecoder)
    return model


def answer(model: EncoderDecoder, memory: Memory) -> Tensor:
    return model.decoder(TARGET, memory=memory)


def moved(model: EncoderDecoder, memory: Memory) -> float:
    return (answer(model, memory) - answer(model, model.encode(SOURCE))).abs().max().item()


@pytest.mark.parametrize("position", get_args(TrunkSpec.model_fields["position"].annotation))
def test_the_order_in_which_the_memory_lies_means_nothing_to_the_decoder(position: str):
    model = translator(position)
    memory = model.encode(SOURCE)
    assert moved(model, Memory(memory.x[:, PERMUTATION], memory.layout)) < 5e-6  # measured: 7e-7


def test_what_the_memory_says_means_everything():
    model = translator()
    memory = model.encode(SOURCE)
    assert moved(model, Memory(memory.x.roll(1, dims=0), memory.layout)) > 0.05  # another sentence's; measured: 0.12
    assert moved(model, Memory(memory.x.flip(-1), memory.layout)) > 0.05  # the same numbers in other features: 0.27


def test_the_order_of_the_words_reaches_the_decoder_through_the_encoders_positions_alone():
    for position, reaches in (("sinusoidal", True), ("none", False)):
        model = translator(position)
        assert (moved(model, model.encode(SOURCE[:, PERMUTATION])) > 1e-2) is reaches


def test_every_word_of_the_source_reaches_every_word_of_the_answer_also_the_first():
    model = translator()
    for place in range(T):
        edited = SOURCE.clone()
        edited[:, place] = (edited[:, place] + 1) % VOCABULARY
        change_BT = (answer(model, model.encode(edited)) - answer(model, model.encode(SOURCE))).abs().amax(dim=-1)
        assert change_BT.min() > 1e-3  # measured: 2e-2
