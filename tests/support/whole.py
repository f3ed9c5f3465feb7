"""A whole pipeline in one process, as small as a test needs: every stage's result by role."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.planning import INPUTS, ROLES
from foundation_core.identity import action_key
from foundation_core.recipe import parse_recipe
from foundation_core.stages.contract import Context, Stage
from foundation_core.stages.evaluate import evaluate
from foundation_core.stages.finetune import finetune
from foundation_core.stages.ingest import ingest
from foundation_core.stages.pretrain import pretrain
from foundation_core.stages.publish import publish
from foundation_core.store import Result, commit_result, load_result, record_ids
from foundation_core.tracking.mlflow import MlflowRuns

STAGES: Mapping[str, Stage] = {
    "ingest": ingest, "pretrain": pretrain, "finetune": finetune, "evaluate": evaluate, "publish": publish,
}  # fmt: skip
TINY: Mapping[str, Any] = {
    "pretrain": {
        "steps": 3, "batch_rows": 8, "micro_batch_rows": 8, "validate_every_steps": 2, "validation_rows": 16,
        "engine": "torch", "workers": 1, "precision": "float32",
    },
    "finetune": {
        "steps": 3, "batch_rows": 8, "lr": [1e-3], "seeds": [0, 1], "workers": 1, "few_labels": 3, "all_labels": 8,
        "evaluation_labels": 4, "least_files": 1,
    },
    "evaluate": {"samples": 3, "sample_tokens": 8, "test_rows": 16},
}  # fmt: skip
TRUNK: Mapping[str, Any] = {"width": 16, "depth": 1, "heads": 2}


def run_whole(root: Path, body: Mapping[str, Any], context: Callable[..., Context]) -> dict[str, Result]:
    """Each stage's committed result by role: corpus, trunk, task, scores, version.

    Args:
        body: of a recipe; what it does not say is as in `TINY`.
    """
    merged = {stage: {**TINY.get(stage, {}), **body.get(stage, {})} for stage in STAGES}
    recipe = parse_recipe({**merged, "name": "tiny"})
    results: dict[str, Result] = {}
    runs = MlflowRuns(f"sqlite:///{root / 'mlflow.db'}", root / "mlflow-artifacts", "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOUNDATION_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
        for name, stage in STAGES.items():
            spec, inputs = getattr(recipe, name), {role: results[role] for role in INPUTS[name]}
            if name == "publish":
                pipeline = runs.open_pipeline("tiny", "pipeline key", {}, {})
                patch.setenv("FOUNDATION_RUN_ID", runs.open_stage(pipeline, name, "publish key", {}, {}))
            folder = root / name
            done = stage(spec, inputs, context(folder))
            key = action_key(name, spec, {role: result.content for role, result in inputs.items()})
            commit_result(folder, key, done)
            record_ids(folder, {"mlflow_run": f"run-of-{name}"})
            results[ROLES[name]] = load_result(folder)
    return results
