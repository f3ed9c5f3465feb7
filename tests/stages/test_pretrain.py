"""The pretrain stage: what it keeps, what it says of itself, and how it goes on after an interruption."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foundation_core.cost.flops import flops_per_token
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE
from foundation_core.errors import CheckpointError, ConfigError, DataError, Stopped
from foundation_core.evaluate.likelihood import score_rows
from foundation_core.events import read_events
from foundation_core.files import read_json, sha256_file
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.base import SpecialTokens
from foundation_core.objectives.language import NextToken
from foundation_core.objectives.masked import MaskedToken
from foundation_core.specs import (
    MixedGroupSpec,
    MixtureSpec,
    ModelSpec,
    OptimizerSpec,
    PretrainSpec,
    ShardStoreSpec,
    TrunkSpec,
)
from foundation_core.stages import pretrain as stage
from foundation_core.stages.contract import Context
from foundation_core.stages.pretrain import MODEL_FILE, WEIGHTS_FILE, pretrain
from foundation_core.stages.sample_order import order_hash
from foundation_core.stages.training_data import TrainingData
from foundation_core.store import Result, StageResult
from foundation_core.weights import load_weights, weights_hash
from tests.support.faults import StopAfter
from tests.support.tasks import PACKAGES, SHAPE, ingested

MODEL = ModelSpec(trunk=TrunkSpec(width=16, depth=1, heads=2), context_tokens=32)
SPEC = PretrainSpec(
    model=MODEL, steps=10, batch_rows=4, micro_batch_rows=2, optimizer=OptimizerSpec(lr=2e-2), precision="float32",
    validate_every_steps=2, validation_rows=20, checkpoint_every_steps=3, workers=1, engine="torch",
)  # fmt: skip
Contexts = Callable[..., Context]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return ingested(tmp_path_factory.mktemp("ingested"))


@pytest.fixture(scope="module")
def finished(
    corpus: Result, tmp_path_factory: pytest.TempPathFactory, serial_context: Contexts
) -> tuple[Path, StageResult]:
    folder = tmp_path_factory.mktemp("pretrain")
    return folder, pretrain(SPEC, {"corpus": corpus}, serial_context(folder))


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrix product costs more than a tiny training: time it once, in `finished`."""
    monkeypatch.setattr(stage, "matmul_flops_per_second", lambda dtype, device: 1e9)


def _logged(folder: Path, name: str) -> dict[int, float]:
    events = (event for _, event in read_events(folder) if event["kind"] == "metrics")
    return {event["step"]: event["values"][name] for event in events if name in event["values"]}


def test_the_weights_that_are_kept_are_those_of_the_best_validation(
    finished: tuple[Path, StageResult], corpus: Result
) -> None:
    folder, result = finished
    validations = _logged(folder, "validation/bits_per_byte")
    assert list(validations) == [2, 4, 6, 8, 10]
    best = min(validations, key=lambda step: validations[step])
    assert result.summary["best_step"] == best
    model = build(MODEL, SHAPE)
    model.load_state_dict(load_weights(folder / WEIGHTS_FILE))
    opened = TrainingData.open(corpus, MODEL.context_tokens)
    rows = stage.Order(len(opened.validation), seed=0).take(0, min(SPEC.validation_rows, len(opened.validation)))
    again = score_rows(model.eval(), NextToken(), opened.validation, rows, opened.token_bytes)
    assert again.bits_per_byte == pytest.approx(validations[best], rel=1e-6)


def test_it_learns(finished: tuple[Path, StageResult]) -> None:
    losses = _logged(finished[0], "train/loss_nats")
    assert list(losses) == list(range(1, 11))
    assert losses[10] < 0.9 * losses[1]


def test_the_outputs_are_the_model_its_weights_and_the_name_of_its_tokenizer(
    finished: tuple[Path, StageResult], corpus: Result
) -> None:
    folder, result = finished
    assert result.outputs == {name: sha256_file(folder / name) for name in (MODEL_FILE, WEIGHTS_FILE)}
    body = read_json(folder / MODEL_FILE)
    assert ModelSpec.model_validate(body["model"]) == MODEL
    assert body["shape"] == SHAPE.to_json()
    assert body["tokenizer"] == corpus.outputs[TOKENIZER_FILE]


def test_masked_tokens_are_refused_on_the_causal_trunk_of_another_package(
    corpus: Result, tmp_path: Path, serial_context: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        TrainingData, "objective", lambda data, spec: MaskedToken(SpecialTokens(SHAPE.vocabulary, 0, mask=1))
    )
    with pytest.raises(ConfigError, match="the trunk of the family decoder reads only backwards"):
        pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path))


def test_shards_may_lie_elsewhere_and_the_result_is_the_same(
    finished: tuple[Path, StageResult], corpus: Result, tmp_path: Path, serial_context: Contexts, untimed: None
) -> None:
    shutil.copytree(corpus.folder, tmp_path / "copy")
    shutil.copytree(corpus.folder, tmp_path / "manifests", ignore=shutil.ignore_patterns("shard-*.arrow"))
    inputs = {"corpus": replace(corpus, folder=tmp_path / "manifests")}
    shards = ShardStoreSpec(address=str(tmp_path / "copy"), cache_folder=str(tmp_path / "cache"))
    there = SPEC.model_copy(update={"shards": shards})
    assert pretrain(there, inputs, serial_context(tmp_path / "there")).outputs == finished[1].outputs
    assert list((tmp_path / "cache").glob("*.arrow"))
    assert there.meaning() == SPEC.meaning()
    with pytest.raises(DataError, match="is not there"):  # the negative control
        pretrain(SPEC, inputs, serial_context(tmp_path / "here"))


def test_utilisation_is_the_flops_of_training_over_those_of_the_product(finished: tuple[Path, StageResult]) -> None:
    summary = finished[1].summary
    flops = flops_per_token(MODEL, SHAPE)
    assert summary["flops_per_token"] == flops
    share = summary["tokens_per_second"] * flops / summary["matmul_flops_per_second"]
    assert summary["model_flops_utilisation"] == pytest.approx(share)
    assert 0 < share < 1
    assert summary["precision"] == {"name": "float32", "reason": "the recipe says so"}


def test_the_order_and_the_corpus_are_said(finished: tuple[Path, StageResult], corpus: Result) -> None:
    folder, result = finished
    (dataset,) = [event for _, event in read_events(folder) if event["kind"] == "dataset"]
    assert dataset["facts"]["digest"] == corpus.content
    opened = TrainingData.open(corpus, MODEL.context_tokens)
    size = len(opened.train)
    named = order_hash(SPEC, stage.Order(size, SPEC.seed), opened)
    assert result.summary["order_hash"] == named
    tags: dict[str, str] = {}
    for _, event in read_events(folder):
        tags |= event["values"] if event["kind"] == "tags" else {}
    assert tags == {name: result.summary[name] for name in ("order_hash", "model_hash_start", "model_hash_end")}
    assert order_hash(SPEC, stage.Order(size, SPEC.seed + 1), opened) != named  # the negative controls
    assert order_hash(SPEC, stage.Order(size, SPEC.seed), replace(opened, content="f" * 64)) != named
    assert result.summary["epochs"] == pytest.approx(SPEC.steps * SPEC.batch_rows / size)


def test_the_model_is_named_before_the_first_step_and_after_the_last(finished: tuple[Path, StageResult]) -> None:
    folder, result = finished
    born = weights_hash(initialize(build(MODEL, SHAPE), SPEC.seed).state_dict())
    assert result.summary["model_hash_start"] == born != result.summary["model_hash_end"]
    assert born != weights_hash(initialize(build(MODEL, SHAPE), SPEC.seed + 1).state_dict())
    if result.summary["best_step"] == SPEC.steps:  # the weights that are kept are those of the best validation
        assert weights_hash(load_weights(folder / WEIGHTS_FILE)) == result.summary["model_hash_end"]
    said = [event["text"] for _, event in read_events(folder) if event["kind"] == "say"]
    for name in ("order_hash", "model_hash_start"):
        assert any(result.summary[name][:12] in text for text in said)
    (ended,) = (text for text in said if text.startswith("ended after step"))
    assert result.summary["model_hash_end"][:12] in ended


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("step", [2, 3, 7])
def test_an_interrupted_stage_ends_with_the_same_outputs(
    finished: tuple[Path, StageResult], corpus: Result, tmp_path: Path, serial_context: Contexts, step: int
) -> None:
    with pytest.raises(Stopped, match=f"after step {step} of 10"):
        pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path, stop=StopAfter(step)))
    again = pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path))
    assert again.outputs == finished[1].outputs
    for name in ("best_step", "best_validation", "order_hash", "model_hash_end", "steps", "parameters"):
        assert again.summary[name] == finished[1].summary[name]


@pytest.mark.usefixtures("untimed")
def test_a_stage_that_died_before_it_could_say_so_has_the_same_outputs_and_times_nothing(
    finished: tuple[Path, StageResult], corpus: Result, tmp_path: Path, serial_context: Contexts
) -> None:
    pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path))
    again = pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path))
    assert again.outputs == finished[1].outputs
    assert "tokens_per_second" not in again.summary


@pytest.mark.usefixtures("untimed")
def test_a_stage_that_a_budget_ends_is_a_result_that_says_so(
    corpus: Result, tmp_path: Path, serial_context: Contexts
) -> None:
    spec = SPEC.model_copy(update={"max_tokens": 400})
    with pytest.raises(Stopped):
        pretrain(spec, {"corpus": corpus}, serial_context(tmp_path, stop=StopAfter(1)))
    result = pretrain(spec, {"corpus": corpus}, serial_context(tmp_path))
    tokens = _logged(tmp_path, "train/tokens")
    last = min(step for step, seen in tokens.items() if seen >= 400)
    assert 1 < last < SPEC.steps
    facts = {"steps": last, "planned_steps": SPEC.steps, "ended_by": "max_tokens", "trained_tokens": tokens[last]}
    assert {name: result.summary[name] for name in facts} == facts
    assert result.summary["training_seconds"] > 0
    assert result.summary["epochs"] == pytest.approx(last * SPEC.batch_rows / len(TrainingData.open(corpus, 32).train))
    assert result.summary["best_step"] in _logged(tmp_path, "validation/bits_per_byte")
    assert result.outputs[WEIGHTS_FILE] == sha256_file(tmp_path / WEIGHTS_FILE)
    said = [event["text"] for _, event in read_events(tmp_path) if event["kind"] == "say"]
    assert f"max_tokens=400 is used up: ended after step {last} of {SPEC.steps}" in said


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"checkpoint_every_steps": 1, "keep_checkpoints": 1}, True),
        ({"max_tokens": 10**9, "max_seconds": 1e9}, True),
        ({"prefetch_steps": 0}, True),
        ({"packing": "best_fit"}, False),
        ({"mixture": MixtureSpec(groups=(MixedGroupSpec(group=PACKAGES[0]),), max_epochs=99.0)}, False),
        ({"max_tokens": 400}, False),
        ({"seed": 1}, False),
        ({"steps": 9}, False),
        ({"optimizer": OptimizerSpec(lr=1e-2)}, False),
    ],
    ids=[
        "saved more often",
        "budgets to spare",
        "no thread",
        "packed",
        "one group",
        "fewer tokens",
        "another seed",
        "a step less",
        "another rate",
    ],
)
def test_what_decides_the_outputs(
    finished: tuple[Path, StageResult],
    corpus: Result,
    tmp_path: Path,
    serial_context: Contexts,
    change: dict[str, Any],
    same: bool,
) -> None:
    other = pretrain(SPEC.model_copy(update=change), {"corpus": corpus}, serial_context(tmp_path))
    assert (other.outputs[WEIGHTS_FILE] == finished[1].outputs[WEIGHTS_FILE]) is same


@pytest.mark.usefixtures("untimed")
def test_checkpoints_of_another_corpus_are_refused(corpus: Result, tmp_path: Path, serial_context: Contexts) -> None:
    with pytest.raises(Stopped):
        pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path, stop=StopAfter(1)))
    other = Result(**{**corpus.__dict__, "content": "f" * 64})
    with pytest.raises(CheckpointError, match="its corpus is"):
        pretrain(SPEC, {"corpus": other}, serial_context(tmp_path))


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, r"its pretrain\.seed is 0\n  Allowed: pretrain\.seed 1"),
        ({"optimizer": OptimizerSpec(lr=1e-2)}, r"its pretrain\.optimizer\.lr is 0\.02"),
        ({"model": MODEL.model_copy(update={"context_tokens": 16})}, r"its pretrain\.model\.context_tokens is 32"),
        ({"steps": 12}, r"its pretrain\.steps is 10"),
    ],
)
def test_a_checkpoint_of_another_spec_is_refused_by_the_name_of_the_field(
    corpus: Result, tmp_path: Path, serial_context: Contexts, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(Stopped):
        pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path, stop=StopAfter(1)))
    with pytest.raises(CheckpointError, match=said):
        pretrain(SPEC.model_copy(update=change), {"corpus": corpus}, serial_context(tmp_path))


@pytest.mark.usefixtures("untimed")
def test_a_checkpoint_whose_order_was_hashed_in_another_way_is_refused_in_words(
    corpus: Result, tmp_path: Path, serial_context: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(stage.Order, "facts", lambda order: {})
        with pytest.raises(Stopped):
            pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path, stop=StopAfter(1)))
    with pytest.raises(CheckpointError, match=r"belongs to another training: its order is [0-9a-f]{64}"):
        pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path))


@pytest.mark.usefixtures("untimed")
def test_a_checkpoint_of_another_tokenizer_is_refused_by_its_name(
    corpus: Result, tmp_path: Path, serial_context: Contexts
) -> None:
    with pytest.raises(Stopped):
        pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path, stop=StopAfter(1)))
    other = replace(corpus, content="f" * 64, outputs={**corpus.outputs, TOKENIZER_FILE: "e" * 64})
    with pytest.raises(CheckpointError, match="its tokenizer is"):
        pretrain(SPEC, {"corpus": other}, serial_context(tmp_path))


@pytest.mark.usefixtures("untimed")
def test_a_checkpoint_does_not_know_where_it_was_saved(
    finished: tuple[Path, StageResult], corpus: Result, tmp_path: Path, serial_context: Contexts
) -> None:
    """Placement fields may change between two tries."""
    with pytest.raises(Stopped):
        pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path, stop=StopAfter(2)))
    other = SPEC.model_copy(update={"workers": 2, "engine": "deepspeed", "zero_stage": 3, "micro_batch_rows": 4})
    again = pretrain(other, {"corpus": corpus}, serial_context(tmp_path))
    assert again.summary["best_step"] == finished[1].summary["best_step"]


def test_an_edited_shard_is_named_before_a_step_is_made(
    corpus: Result, tmp_path: Path, serial_context: Contexts
) -> None:
    shutil.copytree(corpus.folder, tmp_path / "edited")
    edited = Result(**{**corpus.__dict__, "folder": tmp_path / "edited"})
    shard = tmp_path / "edited" / "tokens" / "train" / "shard-00000.arrow"
    body = bytearray(shard.read_bytes())
    body[len(body) // 2] ^= 1
    shard.write_bytes(body)
    with pytest.raises(DataError, match=r"shard-00000\.arrow is damaged.*sha256"):
        pretrain(SPEC, {"corpus": edited}, serial_context(tmp_path / "out"))
    assert not any((tmp_path / "out").glob("checkpoints/step-*"))
