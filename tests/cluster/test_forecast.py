"""A forecast is held to what really happens: counted parameters, measured memory, results on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster import preflight as preflight_module
from cluster.forecast import forecast, resident_bytes
from cluster.planning import plan, source_content_of, stage_key
from cluster.preflight import checked_plan
from cluster.settings import Settings
from foundation_core.cost.memory import memory_of
from foundation_core.cost.size import size_of
from foundation_core.errors import SetupError
from foundation_core.recipe import parse_recipe
from foundation_core.shape import SampleShape
from foundation_core.specs import PipelineSpec, PretrainSpec
from foundation_core.store import StageResult, Store, commit_result

TRAINS = """
import resource, sys, torch
from foundation_core.model.families import build
from foundation_core.shape import SampleShape
from foundation_core.model.initialize import initialize
from foundation_core.objectives.language import NextToken
from foundation_core.specs import OptimizerSpec, PretrainSpec
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.step import train_step

torch.set_num_threads(1)
spec, vocabulary = PretrainSpec.model_validate_json(sys.argv[1]), int(sys.argv[2])
import torch._dynamo
before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
model = build(spec.model, SampleShape(vocabulary=vocabulary))
initialize(model, 0)
engine = TorchEngine(model, EngineRequest(OptimizerSpec()))
rows, context = spec.micro_batch_rows, spec.model.context_tokens
tokens = torch.randint(0, vocabulary, (rows, context + 1))
batch = {"tokens": tokens, "segment": torch.zeros_like(tokens), "position": torch.arange(context + 1).repeat(rows, 1)}
for _ in range(3):
    train_step(engine, NextToken(), [batch], 1e-3, 0)
# not ru_maxrss, which begins with what the parent held when it forked
status = dict(line.split(":") for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024 - before)
"""


def _spec(rows: int, context: int, **trunk: Any) -> PretrainSpec:
    model = {"context_tokens": context, "trunk": trunk, "tie_embeddings": False}
    body = {"model": model, "batch_rows": rows, "micro_batch_rows": rows, "workers": 1, "engine": "torch"}
    return PretrainSpec.model_validate({**body, "precision": "float32"})


@pytest.mark.parametrize(
    ("spec", "vocabulary"),
    [
        (_spec(16, 256, width=256, depth=4, heads=4), 4096),
        (_spec(8, 384, width=384, depth=5, heads=6, feed="swiglu"), 12000),
    ],
)
def test_the_memory_of_a_training_is_near_what_was_said(spec: PretrainSpec, vocabulary: int) -> None:
    command = [sys.executable, "-c", TRAINS, spec.model_dump_json(), str(vocabulary)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    measured = int(done.stdout)
    size = size_of(spec.model, SampleShape(vocabulary=vocabulary))
    said = resident_bytes(memory_of(spec, size, vocabulary, spec.model.context_tokens, fused_attention=False))
    assert 0.75 < said / measured < 1.35, f"said {said / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB"


@pytest.fixture
def recipe(tmp_path: Path) -> PipelineSpec:
    """A recipe over a folder of a few files."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.py").write_text("x = 1\n" * 2000)
    return parse_recipe({"ingest": {"source": {"kind": "folder", "path": str(folder)}}, "pretrain": {"workers": 1}})


def test_what_is_found_costs_nothing_and_what_was_measured_here_is_used(recipe: PipelineSpec, tmp_path: Path) -> None:
    store, content = Store(tmp_path / "results"), source_content_of(recipe)
    before = forecast(recipe, plan(recipe, store, content), store)
    assert set(before.seconds) == {"ingest", "pretrain", "finetune", "evaluate", "publish"}
    assert "guess" in before.basis

    corpus = {"splits": {"train": {"tokens": 7777}}, "bytes_per_token": 2.0, "text_bytes": 60000}
    key = stage_key(recipe, "ingest", {}, content)
    commit_result(store.folder("x", key), key, StageResult({"tokens": "0" * 64}, corpus, 1.0))
    fast = {"tokens_per_second": 1e9, "flops_per_token": 1e9}
    other = stage_key(recipe.model_copy(update={"pretrain": PretrainSpec(seed=9)}), "pretrain", {}, content)
    commit_result(store.folder("x", other), other, StageResult({"weights": "1" * 64}, fast, 1.0))

    after = forecast(recipe, plan(recipe, store, content), store)
    assert "ingest" not in after.seconds
    assert after.corpus_size == 7777
    assert after.disk_bytes < before.disk_bytes
    assert after.seconds["pretrain"] < before.seconds["pretrain"]
    assert "measured" in after.basis


def test_twice_the_steps_take_twice_the_work(recipe: PipelineSpec, tmp_path: Path) -> None:
    store, content = Store(tmp_path / "results"), source_content_of(recipe)

    def work(steps: int) -> float:
        longer = recipe.model_copy(update={"pretrain": recipe.pretrain.model_copy(update={"steps": steps})})
        found = forecast(longer, plan(longer, store, content), store)
        return found.seconds["pretrain"] - nothing

    nothing = 0.0
    nothing = 2 * work(1000) - work(2000)  # what does not depend on the steps
    assert work(2000) == pytest.approx(2 * work(1000))


def test_a_budget_bounds_what_is_forecast(recipe: PipelineSpec, tmp_path: Path) -> None:
    store, content = Store(tmp_path / "results"), source_content_of(recipe)

    def said(**budget: float) -> tuple[int, float]:
        bounded = recipe.model_copy(update={"pretrain": recipe.pretrain.model_copy(update=budget)})
        found = forecast(bounded, plan(bounded, store, content), store)
        return found.trained_size, found.seconds["pretrain"]

    tokens, seconds = said()
    assert said(max_tokens=tokens // 4)[0] == tokens // 4
    assert said(max_tokens=tokens // 4)[1] < seconds
    assert said(max_seconds=0.01)[1] < seconds
    assert said(max_tokens=10 * tokens, max_seconds=1e9) == (tokens, seconds)


def test_a_model_that_cannot_fit_is_refused_with_the_numbers(recipe: PipelineSpec, tmp_path: Path) -> None:
    large = {"trunk": {"width": 16384, "heads": 128, "depth": 200}}
    model = PretrainSpec.model_validate({"model": large, "workers": 1})
    with pytest.raises(SetupError, match=r"1 workers need \d+\.\d GB for \d+ M parameters"):
        checked_plan(recipe.model_copy(update={"pretrain": model}), Settings(tmp_path), "0" * 64)
    elsewhere = Settings(tmp_path, ray_dashboard="http://cluster:8265")
    with pytest.raises(SetupError, match="the run will write about"):  # memory is the cluster's affair, the disk is not
        checked_plan(recipe.model_copy(update={"pretrain": model}), elsewhere, "0" * 64)


def test_an_ingestion_that_cannot_fit_is_refused_with_the_numbers(recipe: PipelineSpec, tmp_path: Path) -> None:
    ingest = recipe.ingest.model_copy(update={"workers": 100_000})
    with pytest.raises(SetupError, match=r"100000 workers on units of 0\.0 GB need about \d+\.\d GB, with 0\.1 GB"):
        checked_plan(recipe.model_copy(update={"ingest": ingest}), Settings(tmp_path), "0" * 64)


def test_a_disk_that_cannot_hold_it_is_refused_with_the_numbers(
    recipe: PipelineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, found = checked_plan(recipe, Settings(tmp_path), "0" * 64)
    assert len(steps) == 5
    assert found.disk_bytes > 0
    monkeypatch.setattr(preflight_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(SetupError, match="free"):
        checked_plan(recipe, Settings(tmp_path), "0" * 64)
