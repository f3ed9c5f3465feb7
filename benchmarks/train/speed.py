"""Tokens a second of the whole product path beside a plain torch rival, and beside the bare step of the same engine.

    rival, in three forms          one process, two threads (rival.py)
    bare step                      one process, the same engine, model and rows; nothing around its steps (bare.py)
    product, 1 worker x 2 threads  `foundation pretrain` on services that are up: Prefect, Ray, DeepSpeed, MLflow
    product, 2 workers x 1 thread  the same

All take turns, round by round. A round's figure is by the wall clock: of the product from the end of one step
to the end of another by its event log, so that whatever happens between steps counts; of the rival that of its median
step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.train.rival import WARM_UP_STEPS, Shape
from cluster.launch import KEEP_MEMORY
from cluster.settings import Settings
from cluster.stack import Stack
from foundation_core.events import read_events

BAR_RIVAL, BAR_PRODUCT, BAR_WORKERS, BAR_BARE, LEAST_OF_RIVAL = 1.20, 0.75, 0.97, 0.97, 0.55
RECIPES = Path(__file__).parents[2] / "recipes"
RIVALS: Mapping[str, dict[str, Any]] = {
    "rival eager": {},
    "rival compiled": {"compile": True},
    "rival, loss in pieces": {"loss_pieces": 8},
}
Round = dict[str, float]


def flops_per_token(shape: Shape) -> int:
    """Of training: 6 for a weight that multiplies, 12 for a feature and key of attention, hidden keys included."""
    weights = shape.depth * 12 * shape.width**2 + shape.vocabulary * shape.width
    return 6 * weights + 12 * shape.depth * shape.width * shape.context_tokens


def measure(pairs: int, shape: Shape) -> list[Round]:
    """Every side's tokens a second, round by round."""
    with tempfile.TemporaryDirectory(prefix="train-speed-") as name:
        folder = Path(name)
        os.environ |= {"FOUNDATION_HOME": name, "FOUNDATION_RECIPES": str(RECIPES)}
        stack = Stack(Settings.from_environment())
        try:
            stack.up(print)
            _foundation("ingest", shape)
            return [_round(number, shape, folder) for number in range(pairs)]
        finally:
            stack.down(print)


def _round(number: int, shape: Shape, folder: Path) -> Round:
    found: Round = {}
    for name, form in RIVALS.items():
        said = _measured("rival", json.dumps(asdict(replace(shape, **form))))
        found[name] = said["tokens_per_second"]
        found["product of matrices"] = max(found.get("product of matrices", 0.0), said["product"])
    for name, workers in (("product 1 x 2", 1), ("product 2 x 1", 2)):
        _foundation("pretrain", shape, workers=workers, seed=10 * number + workers)
        trained = _newest(folder / "results" / "pretrain")
        found[name] = steady_tokens_per_second(trained, shape.tokens)
        if workers == 1:
            bare = _measured("bare", str(trained / "job.json"), str(folder / f"bare-{number}"))
            found["bare step"] = bare["tokens_per_second"]
    print("  ".join(f"{side} {value:,.0f}" for side, value in found.items() if value < 1e9), flush=True)
    return found


def steady_tokens_per_second(folder: Path, tokens: int) -> float:
    """Of a training's event log, from the end of its last warm-up step to the end of its last one."""
    ends = {
        event["step"]: event["time"]
        for _, event in read_events(folder)
        if event["kind"] == "metrics" and "train/lr" in event["values"]
    }
    first, last = WARM_UP_STEPS, max(ends)
    return (last - first) * tokens / (ends[last] - ends[first])


def _measured(side: str, *arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", f"benchmarks.train.{side}", *arguments]
    run = subprocess.run(command, env=os.environ | KEEP_MEMORY, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def _foundation(stage: str, shape: Shape, workers: int = 1, seed: int = 0) -> None:
    knobs: dict[str, Any] = {
        "ingest.tokenizer.vocabulary": shape.vocabulary,
        "pretrain.model.context_tokens": shape.context_tokens,
        "pretrain.model.tie_embeddings": "true",
        "pretrain.model.trunk.width": shape.width,
        "pretrain.model.trunk.depth": shape.depth,
        "pretrain.model.trunk.heads": shape.heads,
        "pretrain.model.trunk.position": "learned",
        "pretrain.model.trunk.feed": "gelu",
        "pretrain.steps": WARM_UP_STEPS + shape.steps,
        "pretrain.batch_rows": shape.batch_rows,
        "pretrain.micro_batch_rows": shape.batch_rows // workers,
        "pretrain.validate_every_steps": 10_000,
        "pretrain.checkpoint_every_steps": 5,
        "pretrain.precision": shape.precision,
        "pretrain.workers": workers,
        "pretrain.threads_per_worker": shape.threads // workers,
        "pretrain.seed": seed,
    }
    words = [word for name, value in knobs.items() for word in (f"--{name}", str(value))]
    command = [str(Path(sys.executable).with_name("foundation")), stage, "quickstart", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _newest(folder: Path) -> Path:
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime)


def report(rounds: list[Round], shape: Shape) -> int:
    """Print each side, each ratio and its bar; the number of bars that were missed."""
    rival = [max(each[name] for name in RIVALS) for each in rounds]
    flops = flops_per_token(shape)
    of_product = median(value * flops / each["product of matrices"] for value, each in zip(rival, rounds, strict=True))
    form = shape.precision
    print(f"the rival at its best reaches {of_product:.2f} of the {form} product (counts from {LEAST_OF_RIVAL})")
    product = [each["product 1 x 2"] for each in rounds]
    rows = [
        ("product path / the best rival", [a / b for a, b in zip(product, rival, strict=True)], BAR_RIVAL),
        (f"product path / {form} product", [e["product 1 x 2"] * flops / e["product of matrices"] for e in rounds],
         BAR_PRODUCT),
        ("2 workers x 1 thread / 1 x 2", [e["product 2 x 1"] / e["product 1 x 2"] for e in rounds], BAR_WORKERS),
        ("product path / bare step", [e["product 1 x 2"] / e["bare step"] for e in rounds], BAR_BARE),
    ]  # fmt: skip
    missed = 0
    for name, ratios, bar in rows:
        good = median(ratios) >= bar
        missed += not good
        each = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"{name:<34} {median(ratios):.3f} (bar {bar:g}) {'met' if good else 'MISSED'}   each: {each}")
    return missed + (of_product < LEAST_OF_RIVAL)
