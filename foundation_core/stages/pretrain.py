"""Pretrain: tokens -> trunk. Every rank runs this same function; rank 0 writes.

shards -> windows -> order -> loader -> loop (step, validate, save) -> best weights
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foundation_core import plugins
from foundation_core.adapt.transfer import MODEL_FILE, MODEL_VERSION, WEIGHTS_FILE
from foundation_core.cost.flops import FORMULA, flops_per_token
from foundation_core.data.loader import Loader
from foundation_core.data.order import Order
from foundation_core.data.packing import Windows
from foundation_core.data.shards import ShardDataset
from foundation_core.data.tokenizer import load_tokenizer, token_bytes
from foundation_core.evaluate.likelihood import score_batches
from foundation_core.evaluate.metrics import LossSum
from foundation_core.evaluate.speed import matmul_flops_per_second
from foundation_core.files import sha256_file, write_json
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.base import Objective
from foundation_core.shape import SampleShape
from foundation_core.specs import PretrainSpec
from foundation_core.stages.contract import Context, Inputs
from foundation_core.store import Result, StageResult
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import Engine, EngineRequest
from foundation_core.train.loop import Plan, Progress, Surroundings, train
from foundation_core.train.precision import Precision
from foundation_core.weights import save_weights

_SCORED_ROWS = 16  # rows of one forward pass of the validation
_LOGGED = ("tokens_per_second", "matmul_flops_per_second", "model_flops_utilisation")


@dataclass(frozen=True)
class Corpus:
    """What pretraining reads of an ingest result."""

    train: Windows
    validation: Windows
    token_bytes: Tensor
    content: str

    @property
    def shape(self) -> SampleShape:
        """What the model is built for."""
        return SampleShape(vocabulary=len(self.token_bytes))

    @staticmethod
    def open(result: Result, context_tokens: int) -> Corpus:
        """Memory-map the shards; every one is checked against its sha256."""
        tokens = result.folder / "tokens"
        return Corpus(
            train=Windows(ShardDataset(tokens / "train"), context_tokens),
            validation=Windows(ShardDataset(tokens / "validation"), context_tokens),
            token_bytes=token_bytes(load_tokenizer(result.folder / "tokenizer.json")),
            content=result.content,
        )


def pretrain(spec: PretrainSpec, inputs: Inputs, context: Context) -> StageResult:
    """Train a model from scratch and keep the weights that are best on validation."""
    context.events.phase("pretrain")
    corpus = Corpus.open(inputs["corpus"], spec.model.context_tokens)
    model = build(spec.model, corpus.shape)
    initialize(model, spec.seed)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    precision = context.choose_precision(spec.precision)
    objective: Objective = plugins.find("objectives", spec.objective)()
    engine = context.engine(model, EngineRequest(spec.optimizer, precision.name, spec.micro_batch_rows))

    order = Order(len(corpus.train), spec.seed)
    order_hash = order.digest(spec.steps * spec.batch_rows)
    loader = Loader(corpus.train, order, spec.batch_rows, spec.micro_batch_rows, engine.rank, engine.world)
    identity = {"corpus": corpus.content, "order": order_hash, "precision": precision.name}
    checkpoints = Checkpoints(context.folder / "checkpoints", engine, identity, spec.keep_checkpoints)
    epochs_a_step = spec.batch_rows / len(corpus.train)
    context.tracker.dataset("corpus", {**inputs["corpus"].summary, "digest": corpus.content})
    context.events.say(
        f"{parameters / 1e6:.2f} M parameters, {engine.world} workers, {spec.steps} steps of {spec.batch_rows} rows"
        f" ({epochs_a_step * spec.steps:.2f} epochs), {precision.name}: {precision.reason}; order {order_hash[:12]}"
    )
    plan = Plan(
        spec.steps, spec.optimizer, spec.seed, spec.validate_every_steps, spec.checkpoint_every_steps,
        spec.max_seconds, spec.max_tokens,
    )  # fmt: skip
    around = Surroundings(
        tracker=context.tracker,
        events=context.events,
        stop_requested=context.stop.requested,
        keep_best=partial(_keep_weights, engine, context.folder / WEIGHTS_FILE),
        validate=partial(_validate, engine, objective, corpus, spec.validation_rows),
    )
    start = time.perf_counter()
    progress = train(engine, objective, loader, plan, checkpoints, around)
    speed = _speed(engine, spec, corpus.shape, progress, precision)
    context.events.phase("done")
    if engine.rank == 0:
        write_json(
            context.folder / MODEL_FILE,
            {"version": MODEL_VERSION, "model": spec.model.model_dump(mode="json"), "shape": corpus.shape.to_json()},
        )
        context.tracker.metrics({f"speed/{name}": value for name, value in speed.items() if name in _LOGGED})
    return StageResult(
        outputs=_outputs(context.folder) if engine.rank == 0 else {},
        summary={
            "parameters": parameters,
            "steps": progress.step,
            "planned_steps": spec.steps,
            "ended_by": progress.ended_by,
            "trained_tokens": progress.labels,
            "training_seconds": progress.seconds,
            "epochs": epochs_a_step * progress.step,
            "best_step": progress.best_step,
            "best_validation_bits_per_byte": progress.best_bits_per_byte,
            "order_hash": order_hash,
            "workers": engine.world,
            "precision": precision._asdict(),
            **speed,
        },
        seconds=time.perf_counter() - start,
    )


def _keep_weights(engine: Engine, path: Path, step: int) -> None:
    weights = engine.weights()
    if engine.rank == 0:
        save_weights(path, weights, {"step": str(step)})


def _validate(engine: Engine, objective: Objective, corpus: Corpus, rows: int) -> LossSum:
    """The loss on the same validation rows every time, shared out over the ranks."""
    size = len(corpus.validation)
    loader = Loader(corpus.validation, Order(size, seed=0), min(rows, size), _SCORED_ROWS, engine.rank, engine.world)
    mine = score_batches(engine.model, objective, loader.micro_batches(0), corpus.token_bytes)
    sums = torch.tensor([mine.nats, mine.labels, mine.bytes], dtype=torch.float64, device=engine.device)
    nats, labels, text_bytes = engine.sum_over_ranks(sums).tolist()
    return LossSum(nats, int(labels), int(text_bytes))


def _speed(
    engine: Engine, spec: PretrainSpec, shape: SampleShape, progress: Progress, precision: Precision
) -> dict[str, Any]:
    """Tokens a second, and model FLOPs over those of a plain product on all threads, while the other ranks wait."""
    engine.barrier()
    product = matmul_flops_per_second(precision.dtype) if engine.rank == 0 else 0.0
    engine.barrier()
    flops, formula = flops_per_token(spec.model, shape), FORMULA
    if not progress.step_seconds or engine.rank != 0:  # continued after its last step: nothing was timed
        return {"flops_per_token": flops, "flops_formula": formula}
    tokens_per_second = spec.batch_rows * spec.model.context_tokens / statistics.median(progress.step_seconds)
    return {
        "tokens_per_second": tokens_per_second,
        "matmul_flops_per_second": product,
        "model_flops_utilisation": tokens_per_second * flops / product,
        "flops_per_token": flops,
        "flops_formula": formula,
    }


def _outputs(folder: Path) -> dict[str, str]:
    return {name: sha256_file(folder / name) for name in (MODEL_FILE, WEIGHTS_FILE)}
