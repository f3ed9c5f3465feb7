"""What a model says of an example is kept with it; one that says something else is not the one that was saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.events import EventLog, read_events
from foundation_core.files import write_json
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.base import Objective, SpecialTokens
from foundation_core.objectives.experts import BalancedNextToken
from foundation_core.objectives.language import NextToken, Prefix
from foundation_core.objectives.masked import MaskedToken, SpanCorruption
from foundation_core.objectives.pairs import Captioning, Contrastive
from foundation_core.objectives.patches import MaskedPatches
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, OptimizerSpec
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.example import EXAMPLE_TOKENS, MOST_VALUES, OutputCheck, from_file, to_bytes
from foundation_core.train.manifest import finished, read_manifest
from foundation_core.train.retention import Retention
from foundation_core.train.writer import hash_file
from tests.support.training import EXPERTS, MODEL, PAIRS, VOCABULARY, Pairs

TOKENS = SpecialTokens(VOCABULARY, end=0, start=VOCABULARY - 1, mask=VOCABULARY - 2, sentinels=(40, 41, 42, 43))
VALUES = SampleShape(VOCABULARY, 1, 2, 4)


def _family(name: str, base: ModelSpec = MODEL) -> ModelSpec:
    return base.model_copy(update={"family": name})


FAMILIES: dict[str, tuple[ModelSpec, SampleShape, Objective]] = {
    "decoder": (MODEL, SampleShape(VOCABULARY), NextToken()),
    "prefix": (MODEL, SampleShape(VOCABULARY), Prefix()),
    "encoder": (_family("encoder"), SampleShape(VOCABULARY), MaskedToken(TOKENS)),
    "mixture": (EXPERTS, SampleShape(VOCABULARY), BalancedNextToken()),
    "encoder_decoder": (_family("encoder_decoder"), SampleShape(VOCABULARY), SpanCorruption(TOKENS)),
    "captioner": (_family("captioner", PAIRS), VALUES, Captioning(VOCABULARY - 1)),
    "masked_autoencoder": (_family("masked_autoencoder", PAIRS), VALUES, MaskedPatches(PAIRS.patch)),
    "dual_encoder": (PAIRS, VALUES, Contrastive()),
}


@pytest.fixture(params=FAMILIES, scope="module")
def family(request: pytest.FixtureRequest, token_corpus: Path) -> Callable[..., OutputCheck]:
    """Makes the check of a family's engine."""
    spec, shape, objective = FAMILIES[request.param]
    rows = Windows(ShardDataset(token_corpus), 40) if shape == SampleShape(VOCABULARY) else Pairs()

    def check(seed: int = 0, precision: str = "float32") -> OutputCheck:
        engine = TorchEngine(initialize(build(spec, shape), seed), EngineRequest(OptimizerSpec(lr=1e-2), precision))
        return OutputCheck(engine, objective, rows.gather(torch.zeros(1, dtype=torch.int64)), precision)

    return check


def test_of_every_family_the_same_model_says_the_same_and_another_does_not(family: Callable[..., OutputCheck]) -> None:
    one, same, other = family(), family(), family(seed=1)
    saved = one.outputs()
    assert 0 < len(saved) <= MOST_VALUES
    assert not same.differs(saved, one.circumstances())
    assert other.differs(saved, one.circumstances())
    elsewhere = {**one.circumstances(), "world": 7}
    assert not same.differs(saved, elsewhere)
    assert other.differs(saved, elsewhere)


def test_asking_changes_nothing(family: Callable[..., OutputCheck]) -> None:
    check = family()
    check.engine.model.train()
    before, state = check.engine.weights(), torch.get_rng_state()
    check.outputs()
    assert check.engine.model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in check.engine.weights().items())
    assert all(parameter.grad is None for parameter in check.engine.model.parameters())


def test_in_bf16_too_one_model_is_the_same_to_the_last_digit(family: Callable[..., OutputCheck]) -> None:
    saved = family(precision="bf16").outputs()
    assert not family(precision="bf16").differs(saved, family(precision="bf16").circumstances())
    assert family(seed=1, precision="bf16").differs(saved, {**family(precision="bf16").circumstances(), "world": 7})


def _decoder(seed: int, token_corpus: Path) -> OutputCheck:
    engine = TorchEngine(initialize(build(MODEL, SampleShape(VOCABULARY)), seed), EngineRequest(OptimizerSpec()))
    row = Windows(ShardDataset(token_corpus), 40).gather(torch.zeros(1, dtype=torch.int64))
    return OutputCheck(engine, NextToken(), row, "float32")


def test_a_single_weight_that_is_another_is_found_on_the_same_machine(token_corpus: Path) -> None:
    check = _decoder(0, token_corpus)
    saved = check.outputs()
    assert len(saved) == EXAMPLE_TOKENS * VOCABULARY
    with torch.no_grad():
        next(iter(check.engine.model.parameters()))[1:].mul_(1 + 1e-6)
    assert check.differs(saved, check.circumstances())
    assert not check.differs(saved, {**check.circumstances(), "threads": 99}), (
        "and passes as another machine's rounding"
    )


def test_a_model_that_gives_no_numbers_is_not_the_one_that_was_saved(token_corpus: Path) -> None:
    check = _decoder(0, token_corpus)
    saved = check.outputs()
    nn.init.constant_(next(iter(check.engine.model.parameters())), float("nan"))
    assert check.differs(saved, {**check.circumstances(), "world": 2})


def test_blocks_that_are_compiled_now_may_say_it_a_little_otherwise(token_corpus: Path) -> None:
    check = _decoder(0, token_corpus)
    near = check.outputs() * (1 + 1e-6)
    assert check.differs(near, check.circumstances())
    assert not check.differs(near, {**check.circumstances(), "compiled": True})


def test_another_example_says_nothing(token_corpus: Path) -> None:
    check = _decoder(0, token_corpus)
    assert not check.differs(check.outputs() + 1, {**check.circumstances(), "inputs": "another"})


def test_a_checkpoint_whose_hashes_hold_and_whose_model_speaks_otherwise_is_damaged(
    token_corpus: Path, tmp_path: Path
) -> None:
    def checkpoints(check: OutputCheck) -> Checkpoints:
        events = EventLog(tmp_path / "events")
        return Checkpoints(tmp_path / "them", check.engine, {}, Retention(3), events, check)

    with checkpoints(check := _decoder(0, token_corpus)) as them:
        for step in (1, 2):
            them.save(step, {})
    newest = finished(tmp_path / "them")[2]
    kept = from_file(newest / "example.f32")
    assert torch.equal(kept, check.outputs())
    with checkpoints(_decoder(1, token_corpus)) as them:
        assert them.restore() == (2, {})
    _save_other_outputs(newest, kept)
    with checkpoints(check := _decoder(1, token_corpus)) as them:
        assert them.restore() == (1, {})
    assert torch.equal(check.outputs(), kept)
    (failure,) = [event for _, event in read_events(tmp_path / "events") if event["kind"] == "failure"]
    assert failure["failure"] == "corrupt_checkpoint"
    assert failure["what"].endswith("does not say what the model that was saved said")


def _save_other_outputs(folder: Path, kept: torch.Tensor) -> None:
    """As if other weights had been saved, with all hashes right."""
    (folder / "example.f32").write_bytes(to_bytes(kept + kept.abs().max()))
    body = read_manifest(folder)
    for entry in body["files"]:
        entry["xxh3_128"] = hash_file(folder / entry["file"])
    write_json(folder / "manifest.json", body)
