"""Every family is built, learns in all of its parameters, and refuses what it cannot be built for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from foundation_core.errors import ConfigError
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import PADDING, Layout
from foundation_core.model.transformer import Reader
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

ROWS, VOCABULARY = 3, 61
TEXT = SampleShape(vocabulary=VOCABULARY)
IMAGE = SampleShape(channels=1, height=8, width=8)
CAPTIONED = SampleShape(vocabulary=VOCABULARY, channels=3, height=4, width=6)
SERIES = SampleShape(channels=2, height=1, width=24)
WIDE = {"width": 32, "depth": 2, "heads": 4}
LIGHT = TrunkSpec(width=16, depth=1, heads=2)


def random(*sizes: int) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(0))


TOKENS = torch.randint(0, VOCABULARY, (ROWS, 12), generator=torch.Generator().manual_seed(1))
VISIBLE = torch.stack([torch.randperm(12, generator=torch.Generator().manual_seed(row))[:4] for row in range(ROWS)])
IMAGES, SIGNALS = random(ROWS, 3, 4, 6), random(ROWS, 2, 1, 24)


class Case(NamedTuple):
    """A family, what it is built for, what it is asked, and the shape of the answer."""

    family: str
    shape: SampleShape
    inputs: tuple[Any, ...]
    answer: tuple[int, ...]
    spec: Mapping[str, Any] = MappingProxyType({})


CASES = {
    "decoder": Case("decoder", TEXT, (TOKENS,), (ROWS, 12, VOCABULARY)),
    "encoder": Case("encoder", TEXT, (TOKENS,), (ROWS, 12, VOCABULARY)),
    "mixture": Case("mixture", TEXT, (TOKENS,), (ROWS, 12, VOCABULARY), {"trunk": {"experts": 3}}),
    "encoder_decoder": Case("encoder_decoder", TEXT, (TOKENS, TOKENS[:, :5]), (ROWS, 5, VOCABULARY)),
    "translator with a light decoder": Case(
        "encoder_decoder", TEXT, (TOKENS, TOKENS[:, :5]), (ROWS, 5, VOCABULARY), {"second_trunk": LIGHT}
    ),
    "captioner": Case("captioner", CAPTIONED, (IMAGES, TOKENS), (ROWS, 12, VOCABULARY), {"second_trunk": LIGHT}),
    "masked_autoencoder": Case("masked_autoencoder", SERIES, (SIGNALS, VISIBLE), (ROWS, 12, 4), {"patch": (1, 2)}),
    "masked images": Case("masked_autoencoder", CAPTIONED, (IMAGES, VISIBLE % 6), (ROWS, 6, 12)),
    "dual_encoder": Case("dual_encoder", CAPTIONED, (IMAGES, TOKENS), (ROWS, 8), {"joint_width": 8}),
}
POSITIONS = ["rotary", "learned", "sinusoidal", "alibi", "relative", "none"]


def made(case: Case, **trunk: Any) -> Reader:
    trunk = {**WIDE, **case.spec.get("trunk", {}), **trunk}
    body = {"family": case.family, "context_tokens": 16, **case.spec, "trunk": trunk}
    return initialize(build(ModelSpec.model_validate(body), case.shape), 0).eval()


def answers(model: nn.Module, case: Case) -> list[Tensor]:
    answer = model(*case.inputs)
    return list(answer) if isinstance(answer, tuple) else [answer]


any_family = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@any_family
@pytest.mark.parametrize("position", POSITIONS)
def test_a_family_answers_in_its_shape_and_learns_in_every_parameter(case: Case, position: str):
    model = made(case, position=position)
    found = answers(model, case)
    assert found[0].shape == case.answer
    sum((answer * random(1, *answer.shape)).sum() for answer in found).backward()
    for name, parameter in model.named_parameters():
        if not name.endswith("key.bias"):  # a softmax does not see what is added to all keys alike
            assert parameter.grad is not None, name
            if ".experts." not in name:
                assert parameter.grad.abs().max() > 0, name


@any_family
@pytest.mark.parametrize(
    "trunk",
    [{"residual": "post", "norm": "layer", "bias": True}, {"residual": "branch"}, {"qk_norm": True, "feed": "relu"}],
    ids=["post", "branch", "qk-norm"],
)
def test_a_part_chosen_by_name_makes_another_model_of_the_same_shape(case: Case, trunk: dict[str, Any]):
    found, usual = answers(made(case, **trunk), case), answers(made(case), case)
    assert found[0].shape == usual[0].shape
    assert (found[0] - usual[0]).abs().max() > 1e-4


@any_family
def test_a_family_reads_with_a_stem_and_a_trunk_that_a_task_takes_over(case: Case):
    model = made(case)
    x, layout = model.stem(case.inputs[0])
    assert model.trunk(x, layout).shape == (ROWS, x.shape[1], 32)
    names = {name for name, _ in model.named_parameters()}
    assert {f"stem.{name}" for name, _ in model.stem.named_parameters()} <= names
    assert {f"trunk.{name}" for name, _ in model.trunk.named_parameters()} <= names


WITH_TOKENS_OUT = [name for name in CASES if name != "dual_encoder"]
"""A dual encoder gives one vector a row: there is nothing less to ask for."""


@pytest.mark.parametrize("name", WITH_TOKENS_OUT)
def test_finish_sees_the_head_and_what_it_would_have_seen(name: str):
    case = CASES[name]
    model = made(case)
    torch.testing.assert_close(
        model(*case.inputs, finish=lambda head, x, layout: head(x, layout)), model(*case.inputs), rtol=0, atol=0
    )


PLACE = torch.arange(12).expand(ROWS, -1)
PADDED_SOURCE = Layout(PLACE, torch.where(PLACE < 8, 0, PADDING))


def test_padding_of_the_source_is_never_read():
    model = made(CASES["encoder_decoder"])
    edited = TOKENS.clone()
    edited[:, 8:] = (edited[:, 8:] + 1) % VOCABULARY
    targets = TOKENS[:, :5]
    assert torch.equal(model(TOKENS, targets, PADDED_SOURCE), model(edited, targets, PADDED_SOURCE))
    assert not torch.equal(model(TOKENS, targets), model(edited, targets))
    short = model(TOKENS[:, :8], targets)
    torch.testing.assert_close(model(TOKENS, targets, PADDED_SOURCE), short, rtol=0, atol=1e-5)  # measured: 1e-6


def test_masked_patches_are_never_read():
    model, case = made(CASES["masked_autoencoder"]), CASES["masked_autoencoder"]
    hidden = torch.ones(ROWS, 12, dtype=torch.bool).scatter(1, VISIBLE, False)
    edited = SIGNALS + 5 * hidden.repeat_interleave(2, dim=1)[:, None, None]
    assert torch.equal(model(SIGNALS, VISIBLE), model(edited, VISIBLE))
    assert not torch.equal(model(SIGNALS, VISIBLE), model(edited, (VISIBLE + 1) % 12))
    shuffled = model(SIGNALS, VISIBLE.flip(1))
    torch.testing.assert_close(shuffled, model(*case.inputs), rtol=0, atol=1e-5)  # measured: 5e-7


def test_a_dual_encoder_gives_unit_vectors_and_a_scale_that_stops_at_a_hundred_and_can_come_back():
    model, case = made(CASES["dual_encoder"]), CASES["dual_encoder"]
    left, right, scale = model(*case.inputs)
    for side in (left, right):
        torch.testing.assert_close(side.norm(dim=-1), torch.ones(ROWS))
    assert scale.item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    scale = model(*case.inputs)[2]
    assert scale.item() == pytest.approx(100)
    scale.backward()
    assert model.log_scale.grad > 0


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "text family on images": (lambda: made(CASES["decoder"]._replace(shape=IMAGE)), "no vocabulary"),
    "image family on text": (lambda: made(CASES["masked_autoencoder"]._replace(shape=TEXT)), "has none"),
    "captions without text": (lambda: made(CASES["captioner"]._replace(shape=IMAGE)), "no vocabulary"),
    "patch": (
        lambda: made(CASES["masked images"]._replace(spec={"patch": (3, 2)})),
        "patch of 3 x 2 does not divide samples of 4 x 6",
    ),
    "second trunk": (lambda: made(CASES["encoder"]._replace(spec={"second_trunk": LIGHT})), "has one trunk"),
    "no experts": (lambda: made(CASES["mixture"]._replace(spec={})), "needs experts"),
}


@pytest.mark.parametrize(("attempt", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_built_is_refused_with_the_reason(attempt: Callable[[], Any], reason: str):
    with pytest.raises(ConfigError, match=reason):
        attempt()


def test_the_two_sides_of_a_translator_share_one_embedding_where_it_fits_both():
    shared, own = made(CASES["encoder_decoder"]), made(CASES["translator with a light decoder"])
    assert [name for name in shared.state_dict() if "embed" in name] == ["stem.embed.weight"]
    assert [name for name in own.state_dict() if "embed" in name] == ["stem.embed.weight", "decoder.stem.embed.weight"]
