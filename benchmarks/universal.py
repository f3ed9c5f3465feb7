"""DeepSpeed's universal checkpoints, elastic more than once: `python -m benchmarks.universal`; decision 0028.

    2 ranks --save, convert--> 1 rank --save, convert--> 2 ranks --save, convert--> 1 rank       5 steps each
    2 ranks -------------------------------- 20 steps -------------------------------->         the same, whole

For each ZeRO stage and precision: the losses of each leg against those of the whole training. "mended": what loading at
ZeRO 3 breaks is put right. It measures DeepSpeed's format, which the product does not use.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cluster import deepspeed_engine
from cluster.embedded import free_port
from foundation_core.data.loading.loader import Loader
from foundation_core.data.loading.order import Order
from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.objectives.language import NextToken
from foundation_core.specs import OptimizerSpec
from foundation_core.train.engine import EngineRequest
from foundation_core.train.schedule import lr_at
from foundation_core.train.step import train_step
from tests.support.training import MODEL, tiny_model, write_corpus

REPOSITORY = Path(__file__).parents[1]
LEGS = (2, 1, 2, 1)
LEG_STEPS = 5
OPTIMIZER = OptimizerSpec(lr=1e-2)
CASES = {f"{precision}, ZeRO {stage}": (precision, stage) for precision in ("float32", "bf16") for stage in range(4)}
MENDED = "float32, 3, mended"
CASES[MENDED] = ("float32", 3)


def main() -> None:
    """Do all legs, each in processes of their own, and print the table."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        write_corpus(out / "corpus")
        for leg, world in enumerate(LEGS):
            _start(out, leg, world)
        print("precision, stage     " + "".join(f"{world} ranks".rjust(22) for world in LEGS))
        legs = [json.loads((out / f"leg-{leg}.json").read_text()) for leg in range(len(LEGS))]
        for case, whole in legs[0]["whole"].items():
            cells = "".join(_cell(leg["part"][case], whole).rjust(22) for leg in legs)
            print(f"{case:<21}{cells}")
        print(
            "\nfirst loss of a leg, largest of its five: relative difference from the training that was not interrupted"
        )


def _cell(part: dict[str, Any], whole: dict[str, float]) -> str:
    if "error" in part:
        return str(part["error"])
    differences = [abs(loss / whole[step] - 1) for step, loss in part.items()]
    return f"{differences[0]:.1e}, {max(differences):.1e}"


def _start(out: Path, leg: int, world: int) -> None:
    """Run the ranks of a leg to their end."""
    group = {"WORLD_SIZE": str(world), "LOCAL_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    common = {**os.environ, **group, "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", "benchmarks.universal", str(out), str(leg)]
    ranks = [
        subprocess.Popen(command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, cwd=REPOSITORY)
        for rank in range(world)
    ]
    if any(rank.wait() for rank in ranks):
        raise SystemExit(f"a rank of leg {leg} failed")


def run_leg(out: Path, leg: int) -> None:
    """What one rank of a leg does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found: dict[str, dict[str, Any]] = {"part": {}, "whole": {}}
    for case, (precision, stage) in CASES.items():
        try:
            found["part"][case] = _part(out / case, leg, precision, stage, mend=case == MENDED)
        except Exception as error:  # what cannot be loaded is a result
            found["part"][case] = {"error": type(error).__name__}
        if leg == 0:
            engine = _engine(precision, stage, universal=False)
            found["whole"][case] = _losses(out / case, engine, 0, len(LEGS) * LEG_STEPS)
    if dist.get_rank() == 0:
        (out / f"leg-{leg}.json").write_text(json.dumps(found))
    dist.barrier()


def _part(folder: Path, leg: int, precision: str, stage: int, *, mend: bool) -> dict[int, float]:
    """Load the leg before, take five steps, save, convert; the losses by step."""
    engine = _engine(precision, stage, universal=leg > 0)
    if leg:
        groups = [_settings(group) for group in engine._engine.optimizer.param_groups]
        engine._engine.load_checkpoint(str(folder), tag=f"leg-{leg - 1}-universal")
        if mend:
            _mend(engine, groups)
    losses = _losses(folder, engine, leg * LEG_STEPS, (leg + 1) * LEG_STEPS)
    engine._engine.save_checkpoint(str(folder), tag=f"leg-{leg}")
    dist.barrier()
    if dist.get_rank() == 0:
        paths = ["--input_folder", str(folder / f"leg-{leg}"), "--output_folder", str(folder / f"leg-{leg}-universal")]
        workers = ["--num_extract_workers", "1", "--num_merge_workers", "1", "--inject_missing_state"]
        command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", *paths, *workers]
        subprocess.run(command, env={**os.environ, "DS_ACCELERATOR": "cpu"}, capture_output=True, check=False)
    dist.barrier()
    return losses


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _mend(engine: deepspeed_engine.DeepSpeedEngine, groups: list[dict[str, Any]]) -> None:
    """Give each group of parameters its own settings again, and a count of steps of its own."""
    optimizer = engine._engine.optimizer
    for group, settings in zip(optimizer.param_groups, groups, strict=True):
        group.update(settings)
    for state in optimizer.optimizer.state.values():
        state["step"] = state["step"].clone()


def _engine(precision: str, stage: int, *, universal: bool) -> deepspeed_engine.DeepSpeedEngine:
    plain = deepspeed_engine.deepspeed_config

    def config(request: EngineRequest, zero_stage: int) -> dict[str, Any]:
        return plain(request, zero_stage) | {"checkpoint": {"load_universal": universal}}

    deepspeed_engine.deepspeed_config = config
    try:
        return deepspeed_engine.DeepSpeedEngine(tiny_model(), EngineRequest(OPTIMIZER, precision, 2), zero_stage=stage)
    finally:
        deepspeed_engine.deepspeed_config = plain


def _losses(folder: Path, engine: deepspeed_engine.DeepSpeedEngine, first: int, end: int) -> dict[int, float]:
    rows = Windows(ShardDataset(folder.parent / "corpus"), MODEL.context_tokens)
    loader = Loader(rows, Order(len(rows), seed=0), 4, 2, engine.rank, engine.world)
    lr = {step: lr_at(step, len(LEGS) * LEG_STEPS, OPTIMIZER) for step in range(first, end)}
    return {step: train_step(engine, NextToken(), loader.micro_batches(step), lr[step], 0).loss for step in lr}


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run_leg(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
