"""A sweep is named by what its points are, refuses what cannot be told apart, and remembers how each point ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.settings import Settings
from cluster.sweep import OpenSweep, Outcome, Sweep, plan_sweep
from foundation_core.errors import ConfigError, DataError, FoundationError
from foundation_core.specs import PipelineSpec
from foundation_core.tracking.base import leading
from tests.cluster.conftest import Recipes

LR = "pretrain.optimizer.lr"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "home")


@pytest.fixture
def recipe(ingest_recipe: Recipes) -> PipelineSpec:
    return ingest_recipe()


def _changed(recipe: PipelineSpec, stage: str, **fields: Any) -> PipelineSpec:
    return recipe.model_copy(update={stage: getattr(recipe, stage).model_copy(update=fields)})


def test_the_same_points_are_the_same_sweep_however_they_are_written(recipe: PipelineSpec, settings: Settings) -> None:
    sweep = plan_sweep(recipe, LR, ["1e-3", "0.002"], "pretrain", settings)
    assert sweep.id == plan_sweep(recipe, LR, [".002", "0.0010"], "pretrain", settings).id
    assert [point.value for point in sweep.points] == ["0.001", "0.002"]
    assert [sweep.name(point) for point in sweep.points] == ["lr=0.001", "lr=0.002"]
    assert [point.recipe.pretrain.optimizer.lr for point in sweep.points] == [0.001, 0.002]


def test_what_decides_no_result_of_a_sweep_is_not_in_its_id(recipe: PipelineSpec, settings: Settings) -> None:
    def name(recipe: PipelineSpec, last: str = "pretrain", values: tuple[str, ...] = ("1e-3", "2e-3")) -> str:
        return plan_sweep(recipe, LR, values, last, settings).id

    unlike = _changed(recipe, "pretrain", optimizer=recipe.pretrain.optimizer.model_copy(update={"lr": 0.5}))
    behind, place = _changed(recipe, "finetune", steps=3), _changed(recipe, "pretrain", keep_checkpoints=5)
    for other in (unlike, behind, place, recipe.model_copy(update={"name": "other"})):
        assert name(other) == name(recipe)
    longer = _changed(recipe, "pretrain", steps=7)
    others = [name(longer), name(recipe, "finetune"), name(recipe, values=("1e-3",)), name(behind, "finetune")]
    assert len({name(recipe), *others}) == 5


@pytest.mark.parametrize(
    ("over", "values", "last", "words"),
    [
        (LR, ["1e-3", "-1"], "pretrain", f"--{LR} -1: {LR}: Input should be greater than 0, found -1"),
        (LR, ["many"], "pretrain", "Input should be a valid number"),
        (LR, ["0.001", "1e-3"], "pretrain", f"{LR} 0.001 and {LR} 1e-3 have the same result"),
        (LR, [], "pretrain", "the sweep has no values"),
        (LR, ["1e-3"], "publish", "a sweep cannot end with 'publish'"),
        ("pretrain.optimizer.rate", ["1"], "pretrain", "unknown field; allowed: kind, lr,"),
        ("pretrain.optimizer", ["1"], "pretrain", "Input should be a valid dictionary"),
        ("pretrain.steps.more", ["1"], "pretrain", "reaches into 'steps', which is a single value"),
        (
            "pretrain.model.trunk.heads",
            ["2", "3"],
            "pretrain",
            "pretrain.model.trunk.heads 3: pretrain.model.trunk: heads",
        ),
        ("pretrain.keep_checkpoints", ["1", "2"], "pretrain", "have the same result"),
        ("pretrain.model.family", ["web"], "pretrain", "no family is called 'web'"),
        ("finetune.steps", ["1", "2"], "finetune", "finetune.steps cannot be swept"),
        ("name", ["a"], "pretrain", "name cannot be swept"),
        ("ingest.source.path", ["/nowhere"], "pretrain", "the source folder /nowhere is not there"),
    ],
)
def test_what_cannot_be_is_refused(
    recipe: PipelineSpec, settings: Settings, over: str, values: list[str], last: str, words: str
) -> None:
    with pytest.raises((ConfigError, DataError)) as refused:
        plan_sweep(recipe, over, values, last, settings)
    assert words in str(refused.value)
    assert refused.value.exit_code == 2
    assert not settings.results.exists()


@pytest.mark.parametrize(
    ("over", "values"),
    [
        ("pretrain.model.trunk.feed", ["gelu", "swiglu"]),
        ("pretrain.max_tokens", ["null", "1000"]),
        ("pretrain.model.tie_embeddings", ["true", "false"]),
        ("ingest.tokenizer.vocabulary", ["300", "400"]),
    ],
)
def test_a_value_is_kept_as_it_can_be_written_again(
    recipe: PipelineSpec, settings: Settings, over: str, values: list[str]
) -> None:
    sweep = plan_sweep(recipe, over, values, "pretrain", settings)
    assert [point.value for point in sweep.points] == values
    again = plan_sweep(recipe, over, [point.value for point in sweep.points], "pretrain", settings)
    assert [point.recipe for point in again.points] == [point.recipe for point in sweep.points]


GOOD, BAD = Outcome("0.001", leading({"bits_per_byte": 1.5}), 10), Outcome("2", failure="the training loss is nan")


@pytest.fixture
def sweep(recipe: PipelineSpec, settings: Settings) -> Sweep:
    return plan_sweep(recipe, LR, ["0.001", "2"], "pretrain", settings)


def test_how_points_ended_is_remembered_and_a_failure_is_tried_again(sweep: Sweep, settings: Settings) -> None:
    assert sweep.outcomes(settings) == []
    OpenSweep(sweep, settings).record([GOOD, BAD])
    assert sweep.outcomes(settings) == [GOOD, BAD]
    assert [outcome.rank for outcome in sweep.outcomes(settings)] == [1.5, float("inf")]
    assert not sweep.is_done(settings)


def test_a_sweep_of_failures_has_failed(sweep: Sweep, settings: Settings) -> None:
    with pytest.raises(FoundationError, match=r"every value of .*\.lr failed: the training loss is nan"):
        OpenSweep(sweep, settings).record([BAD, BAD])
    assert sweep.outcomes(settings) == [BAD, BAD]
