"""A plan says what would run and why, from keys alone; nothing is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.planning import INPUTS, ROLES, Step, plan, source_content_of, stage_key
from foundation_core.recipe import parse_recipe
from foundation_core.specs import PipelineSpec
from foundation_core.store import Result, StageResult, Store, commit_result

SOURCE = "5" * 64
OLD = PipelineSpec()


def _recipe(**stages: dict[str, Any]) -> PipelineSpec:
    return parse_recipe(stages)


def _commit_all(store: Store, recipe: PipelineSpec, stamp: str = "") -> None:
    """Commit a result for every stage, as if the whole pipeline had run; equal keys make equal content."""
    results: dict[str, Result] = {}
    for stage, roles in INPUTS.items():
        key = stage_key(recipe, stage, {role: results[role] for role in roles}, SOURCE)
        made = StageResult({"output": key.digest + stamp}, {}, 1.0)
        result = commit_result(store.folder(recipe.name, key), key, made)
        if stage in ROLES:
            results[ROLES[stage]] = result


def _reruns(steps: list[Step]) -> list[str]:
    return [step.stage for step in steps if step.result is None]


@pytest.fixture
def planned(tmp_path: Path) -> Callable[[PipelineSpec], list[Step]]:
    """Plans a recipe in a store in which the default recipe has run."""
    store = Store(tmp_path)
    _commit_all(store, _recipe())
    return lambda recipe: plan(recipe, store, SOURCE)


def test_an_unchanged_recipe_reruns_nothing(planned: Callable[[PipelineSpec], list[Step]]) -> None:
    assert _reruns(planned(_recipe())) == []


def test_scores_and_cards_of_a_corpus_that_is_now_checked_are_made_anew_and_its_models_are_not(tmp_path: Path) -> None:
    results = {role: Result(stage, "", role, tmp_path, {}, 1.0) for stage, role in ROLES.items()}
    sets = [{"name": "farm", "sha256": "5" * 64, "dropped": 0}]
    checked = replace(results["corpus"], summary={"decontamination": sets})
    changed = [
        stage
        for stage in list(ROLES)[1:]
        if stage_key(OLD, stage, results, SOURCE) != stage_key(OLD, stage, {**results, "corpus": checked}, SOURCE)
    ]
    assert changed == ["evaluate", "publish"]
    unchecked = replace(checked, summary={"decontamination": []})
    assert stage_key(OLD, "evaluate", {**results, "corpus": unchecked}, SOURCE) == stage_key(
        OLD, "evaluate", results, SOURCE
    )


@pytest.mark.parametrize(
    ("change", "reruns", "reason"),
    [
        ({"publish": {"alias": "champion"}}, ["publish"], "spec.alias: candidate -> champion"),
        ({"evaluate": {"seed": 3}}, ["evaluate", "publish"], "spec.seed: 0 -> 3"),
        (
            {"finetune": {"lr": [0.1]}},
            ["finetune", "evaluate", "publish"],
            f"spec.lr: {list(OLD.finetune.lr)} -> [0.1]",
        ),
        ({"pretrain": {"steps": 9}}, list(INPUTS)[1:], f"spec.steps: {OLD.pretrain.steps} -> 9"),
        ({"ingest": {"shard_tokens": 9999}}, list(INPUTS), f"spec.shard_tokens: {OLD.ingest.shard_tokens} -> 9999"),
    ],
)
def test_a_changed_field_reruns_its_stage_and_those_behind_it_and_is_named(
    planned: Callable[[PipelineSpec], list[Step]], change: dict[str, Any], reruns: list[str], reason: str
) -> None:
    steps = planned(_recipe(**change))
    assert _reruns(steps) == reruns
    told = [step.reasons for step in steps if step.result is None]
    assert told == [(reason,), *[("an earlier stage runs first",)] * (len(reruns) - 1)]


def test_where_and_how_wide_and_under_which_name_reruns_nothing(
    planned: Callable[[PipelineSpec], list[Step]],
) -> None:
    elsewhere = {
        "name": "another-name",
        "ingest": {"workers": 9},
        "pretrain": {"workers": 1, "engine": "torch", "micro_batch_rows": 1, "checkpoint_every_steps": 7},
        "finetune": {"workers": 5},
        "evaluate": {"threads": 1},
    }
    assert _reruns(planned(parse_recipe(elsewhere))) == []


def test_a_changed_source_reruns_everything_and_is_named(tmp_path: Path) -> None:
    _commit_all(Store(tmp_path), _recipe())
    steps = plan(_recipe(), Store(tmp_path), "6" * 64)
    assert _reruns(steps) == list(INPUTS)
    assert steps[0].reasons == (f"inputs.source: {SOURCE} -> {'6' * 64}",)


def test_a_change_without_effect_stops_after_one_stage(tmp_path: Path) -> None:
    """Later stages are keyed by what came out, not by how."""
    store, changed = Store(tmp_path), _recipe(ingest={"quarantine_fraction": 0.9})
    _commit_all(store, _recipe())
    old = store.history("ingest")[0]
    key = stage_key(changed, "ingest", {}, SOURCE)
    assert key.digest != old.key
    commit_result(store.folder("quickstart", key), key, StageResult(old.outputs, {}, 1.0))
    assert _reruns(plan(changed, store, SOURCE)) == []


def test_a_new_data_folder_says_that_nothing_ever_ran(tmp_path: Path) -> None:
    steps = plan(_recipe(), Store(tmp_path), SOURCE)
    assert _reruns(steps) == list(INPUTS)
    assert steps[0].reasons == ("never run in this data folder",)
    assert list(tmp_path.iterdir()) == []


def test_the_reason_is_told_against_the_result_that_is_most_alike(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _commit_all(store, _recipe(ingest={"unit_bytes": 5000, "shard_tokens": 2000, "tokenizer": {"vocabulary": 400}}))
    _commit_all(store, _recipe(ingest={"tokenizer": {"vocabulary": 400}}))
    _commit_all(store, _recipe(ingest={"shard_tokens": 3000, "exact_dedup": False, "split": {"seed": 4}}))
    steps = plan(_recipe(ingest={"tokenizer": {"vocabulary": 500}}), store, SOURCE)
    assert steps[0].reasons == ("spec.tokenizer.vocabulary: 400 -> 500",)


def test_the_same_files_at_two_places_are_one_source(tmp_path: Path) -> None:
    recipes = []
    for place in ("here", "over/there"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.py").write_text("a = 1\n")
        recipes.append(_recipe(ingest={"source": {"kind": "folder", "path": str(tmp_path / place)}}))
    here, there = (source_content_of(recipe) for recipe in recipes)
    assert here == there
    keys = [stage_key(recipe, "ingest", {}, here) for recipe in recipes]
    assert keys[0] == keys[1]
    (tmp_path / "here" / "a.py").write_text("a = 2\n")
    assert source_content_of(recipes[0]) != there
