"""Committed results that can be published, small and with random weights: what every earlier stage would leave."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from foundation_core.adapt.scores import ACCURACY
from foundation_core.adapt.scores import MACRO_F1 as MACRO_F1_SCORE
from foundation_core.adapt.transfer import task_model
from foundation_core.evaluate.metrics import gain, spread
from foundation_core.files import sha256_file, write_json
from foundation_core.identity import action_key
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.shape import SampleShape
from foundation_core.specs import EvaluateSpec, FinetuneSpec, IngestSpec, ModelSpec, PretrainSpec, Spec, TrunkSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.store import Result, StageResult, commit_result, load_result, record_ids
from foundation_core.weights import save_weights

VOCABULARY = 300
SHAPE = SampleShape(vocabulary=VOCABULARY)
CLASSES = ["json", "logging", "unittest"]
MODEL = ModelSpec(trunk=TrunkSpec(width=32, depth=2, heads=2), context_tokens=32)
MACRO_F1 = {
    "pretrained-few": [0.61, 0.64, 0.67], "scratch-few": [0.41, 0.47, 0.44],
    "pretrained-all": [0.81, 0.83, 0.85], "scratch-all": [0.79, 0.82, 0.83],
}  # fmt: skip
BASELINE = {
    "label": "TF-IDF + logistic regression",
    "few": {"macro_f1": 0.523, "accuracy": 0.531},
    "all": {"macro_f1": 0.727, "accuracy": 0.733},
}


def publishable(root: Path, context: Callable[[Path], Context]) -> dict[str, Result]:
    """The inputs of publish: corpus, trunk, task, scores."""
    corpus = _corpus(root, context)
    trunk = _trunk(root, context, corpus)
    task = _task(root, trunk)
    return {"corpus": corpus, "trunk": trunk, "task": task, "scores": _scores(root, trunk, task)}


def _corpus(root: Path, context: Callable[[Path], Context]) -> Result:
    source = root / "source"
    for number in range(40):
        lines = [f"def {name}_{number}(value):\n    return value + {number}\n" for name in ("first", "second", "third")]
        path = source / CLASSES[number % 3] / f"module_{number:02d}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(lines))
    spec = IngestSpec.model_validate(
        {
            "source": {"kind": "folder", "path": str(source)},
            "filters": [{"measure": "characters", "at_least": 20}],
            "split": {"validation_fraction": 0.2, "test_fraction": 0.2},
            "tokenizer": {"vocabulary": VOCABULARY},
        }
    )
    folder = root / "ingest"
    return _committed("ingest", folder, spec, {}, ingest(spec, {}, context(folder)))


def _trunk(root: Path, context: Callable[[Path], Context], corpus: Result) -> Result:
    folder = root / "pretrain"
    tracker = context(folder).tracker
    for step in range(1, 41):
        tracker.metrics(
            {
                "train/loss_nats": 2 + 4 * math.exp(-step / 10), "train/lr": 1e-3 * (1 - step / 50),
                "train/grad_norm": 1 + 3 * math.exp(-step / 5), "train/tokens_per_second": 4000.0 + step,
            }, step,
        )  # fmt: skip
        if step % 10 == 0:
            tracker.metrics({"validation/loss_nats": 2.1 + 4 * math.exp(-step / 10)}, step)
    weights = initialize(build(MODEL, SHAPE), seed=0).state_dict()
    save_weights(folder / "weights.safetensors", weights)
    write_json(
        folder / "model.json",
        {"version": 2, "model": MODEL.model_dump(mode="json"), "shape": SHAPE.to_json()},
    )
    summary = {
        "parameters": sum(value.numel() for value in weights.values()), "steps": 40, "planned_steps": 40,
        "ended_by": "", "best_step": 30, "epochs": 1.25,
        "workers": 2, "precision": {"name": "float32", "reason": "this processor multiplies it faster"},
        "rows_per_second": 125.6,
        "tokens_per_second": 4020.0, "matmul_flops_per_second": 1.84e11, "model_flops_utilisation": 0.43,
        "flops_formula": "6 x weights + 12 x widths x context",
    }  # fmt: skip
    names = ("model.json", "weights.safetensors")
    done = StageResult({name: sha256_file(folder / name) for name in names}, summary, 1.0)
    return _committed("pretrain", folder, PretrainSpec(model=MODEL), {"corpus": corpus.content}, done)


def _task(root: Path, trunk: Result) -> Result:
    folder, outputs = root / "finetune", {}
    for seed, arm in enumerate(MACRO_F1):
        weights = task_model(MODEL, SHAPE, len(CLASSES), "mean", seed).state_dict()
        outputs[f"weights/{arm}.safetensors"] = save_weights(folder / f"weights/{arm}.safetensors", weights)
    arms = {
        arm: {
            "lr": 1e-3, "macro_f1": spread(scores), "accuracy": spread([score + 0.01 for score in scores]),
            "validation": scores,
        } for arm, scores in MACRO_F1.items()
    }  # fmt: skip
    gains = {side: gain(MACRO_F1[f"pretrained-{side}"], MACRO_F1[f"scratch-{side}"]) for side in ("few", "all")}
    scored = {"macro_f1": MACRO_F1_SCORE._asdict(), "accuracy": ACCURACY._asdict()}
    known = {"task": "package_of_fragment", "classes": CLASSES, "scored": scored, "deciding": "macro_f1"}
    done = StageResult(outputs, {**known, "arms": arms, "best_arm": "pretrained-all", "gain": gains}, 1.0)
    spec = FinetuneSpec(classes=3, least_classes=3, fragment_tokens=16)
    return _committed("finetune", folder, spec, {"trunk": trunk.content}, done)


def _scores(root: Path, trunk: Result, task: Result) -> Result:
    folder = root / "evaluate"
    sample = {"document": "one.py", "prompt": "def first(value):\n", "completion": "    ```\n\n    return value\n"}
    write_json(folder / "samples.json", [{**sample, "statements": 2, "reference_statements": 2}])
    summary = {
        "test": {
            "unit": "nats", "loss_nats": 4.47,
            "bits_per_byte": 2.345, "perplexity": 87.6, "rows": 256, "rows_of_split": 512, "checkpoint_step": 30,
        },
        "samples": {
            "parsed_fraction": 0.25, "reference_parsed_fraction": 0.75, "statements_per_parsed_sample": 3.5,
        },
        "baseline": BASELINE,
    }  # fmt: skip
    done = StageResult({"samples.json": sha256_file(folder / "samples.json")}, summary, 1.0)
    inputs = {"trunk": trunk.content, "task": task.content}
    return _committed("evaluate", folder, EvaluateSpec(), inputs, done)


def _committed(stage: str, folder: Path, spec: Spec, inputs: Mapping[str, str], done: StageResult) -> Result:
    commit_result(folder, action_key(stage, spec, inputs), done)
    record_ids(folder, {"mlflow_run": f"run-of-{stage}", "git_commit": "0123abc"})
    return load_result(folder)
