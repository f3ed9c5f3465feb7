"""A corpus of packages that can be told apart, and a trunk: what finetune and evaluate stand on, small."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from foundation_core.alone import alone
from foundation_core.data.shards.dataset import ShardWriter
from foundation_core.data.units.work import TOKENS
from foundation_core.files import sha256_file, write_json
from foundation_core.identity import action_key
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.shape import SampleShape
from foundation_core.specs import FinetuneSpec, IngestSpec, ModelSpec, PretrainSpec, TrunkSpec
from foundation_core.stages.ingest import ingest
from foundation_core.store import Result, StageResult, commit_result, load_result
from foundation_core.weights import save_weights

VOCABULARY = 300
SHAPE = SampleShape(vocabulary=VOCABULARY)
MODEL = ModelSpec(trunk=TrunkSpec(width=16, depth=1, heads=2), context_tokens=32)
PACKAGES = ("apples", "bridges", "clocks", "dragons")
TASK = FinetuneSpec(
    classes=3, least_files=2, fragment_tokens=16, few_labels=4, all_labels=12, evaluation_labels=5, steps=4,
    batch_rows=6, lr=(1e-3, 1e-2), seeds=(0, 1), workers=1,
)  # fmt: skip


def write_tokens(folder: Path, split: str, documents: Mapping[str, int], shard_tokens: int = 200) -> None:
    """Write a split's tokens as ingest would: documents "package/name" of so many tokens, several shards of them.

    No two tokens of a split are alike, so that a fragment tells where it was cut.
    """
    first = 0
    with ShardWriter(folder / "tokens" / split, TOKENS, source={}, shard_size=shard_tokens) as writer:
        for name, length in documents.items():
            package = name.split("/")[0] if "/" in name else ""
            tokens = list(range(first, first + length))
            writer.write(pa.table({"document": [name], "group": [package], "tokens": [tokens]}, schema=TOKENS))
            first += length


def write_packages(root: Path) -> list[Path]:
    """Four packages of definitions, each with words of its own; the same files each time."""
    paths = []
    draw = random.Random(0)
    for package in PACKAGES:
        words = [f"{package[:-1]}_{place}" for place in ("top", "left", "core", "rim")]
        for number in range(14):
            path = root / "source" / package / f"module_{number:02d}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n\n".join(_definition(draw, words) for _ in range(12)))
            paths.append(path)
    return paths


def ingested(root: Path, **fields: Any) -> Result:
    """A corpus result of these packages; keywords add fields to its spec."""
    write_packages(root)
    spec = IngestSpec.model_validate(
        {
            "source": {"kind": "folder", "path": str(root / "source")},
            "split": {"validation_fraction": 0.25, "test_fraction": 0.25},
            "tokenizer": {"vocabulary": VOCABULARY},
            **fields,
        }
    )
    folder = root / "ingest"
    return commit_result(folder, action_key("ingest", spec, {}), ingest(spec, {}, alone(folder)))


def _definition(draw: random.Random, words: Sequence[str]) -> str:
    name, first, second = (draw.choice(words) for _ in range(3))
    return (
        f"def {name}_{draw.randrange(100)}({first}, {second}):\n    return {first} + {second} * {draw.randrange(10)}\n"
    )


def pretrained(root: Path, seed: int = 7) -> Result:
    """A trunk result with random weights."""
    folder, spec = root / "pretrain", PretrainSpec(model=MODEL)
    weights = initialize(build(MODEL, SHAPE), seed).state_dict()
    save_weights(folder / "weights.safetensors", weights)
    write_json(
        folder / "model.json",
        {"version": 2, "model": MODEL.model_dump(mode="json"), "shape": SHAPE.to_json()},
    )
    outputs = {name: sha256_file(folder / name) for name in ("model.json", "weights.safetensors")}
    speeds = {"tokens_per_second": 4000.0, "matmul_flops_per_second": 1e11, "model_flops_utilisation": 0.5}
    summary = {"best_step": 30, **speeds, "flops_per_token": 1000, "flops_formula": "6 x weights"}
    commit_result(folder, action_key("pretrain", spec, {}), StageResult(outputs, summary, 1.0))
    return load_result(folder)
