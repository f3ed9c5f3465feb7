"""Pretrain: rows -> trunk. Every rank runs this same function; rank 0 writes.

shards -> rows -> order -> loader -> loop (step, validate, save) -> best weights
"""

from __future__ import annotations

import gc
import json
import math
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from foundation_core.adapt.transfer import MODEL_FILE, MODEL_VERSION, WEIGHTS_FILE
from foundation_core.cost.flops import FORMULA, flops_per_token
from foundation_core.data.loader import Batch, Loader
from foundation_core.data.order import Order
from foundation_core.data.prefetch import Prefetched
from foundation_core.data.quarantine import Quarantine
from foundation_core.data.shelf import store_shelf
from foundation_core.data.tokenizer import TOKENIZER_FILE
from foundation_core.evaluate.likelihood import score_batches
from foundation_core.evaluate.metrics import LossSum
from foundation_core.evaluate.speed import matmul_flops_per_second
from foundation_core.files import sha256_file, write_json
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.augment import augmented
from foundation_core.objectives.base import Objective
from foundation_core.spec_base import meaning_leaves
from foundation_core.specs import PretrainSpec
from foundation_core.stages.contract import Context, Inputs
from foundation_core.stages.sample_order import order_hash, order_of
from foundation_core.stages.training_data import TrainingData
from foundation_core.store import StageResult
from foundation_core.train.blocks import checkpoint_activations, compile_blocks
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.copies import store_copies
from foundation_core.train.energy import energy
from foundation_core.train.engine import Engine, EngineRequest
from foundation_core.train.example import OutputCheck
from foundation_core.train.goodput import goodput
from foundation_core.train.ledger import Ledger
from foundation_core.train.loop import Plan, Progress, Surroundings, train
from foundation_core.train.precision import Precision
from foundation_core.train.recovery import RewindError
from foundation_core.train.retention import Retention
from foundation_core.train.watch import Watched
from foundation_core.weights import save_weights, weights_hash

_SCORED_ROWS = 16  # rows of one forward pass of the validation
_LOGGED = ("rows_per_second", "tokens_per_second", "matmul_flops_per_second", "model_flops_utilisation")


def pretrain(spec: PretrainSpec, inputs: Inputs, context: Context) -> StageResult:
    """Train a model from scratch and keep the weights that are best on validation.

    Where documents were found by which steps fail, all is built anew, as another process would, and goes on without.
    """
    while True:
        try:
            return _pretrain(spec, inputs, context)
        except RewindError as rewind:
            failure, step, seconds = rewind.entry.failure, rewind.entry.step + 1, rewind.seconds
        gc.collect()  # the engine goes before there is another one
        context.events.write("recovered", failure=failure, step=step, seconds=seconds)


def _pretrain(spec: PretrainSpec, inputs: Inputs, context: Context) -> StageResult:
    context.events.phase("pretrain")
    groups = [mixed.group for mixed in spec.mixture.groups] or None
    shelf = store_shelf(spec.shards, inputs["corpus"].folder)
    corpus = TrainingData.open(inputs["corpus"], spec.model.context_tokens, spec.packing, groups, shelf)
    objective = corpus.objective(spec)
    model = build(spec.model, corpus.shape)
    initialize(model, spec.seed)
    born = weights_hash(model.state_dict())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    precision = context.choose_precision(spec.precision)
    micro_batch_rows = spec.micro_batch_rows if objective.decomposable else math.ceil(spec.batch_rows / context.world)
    if spec.compile:
        compile_blocks(model)
    if spec.activation_checkpointing:
        checkpoint_activations(model)
    request = EngineRequest(spec.optimizer, precision.name, micro_batch_rows, spec.offload_optimizer)
    engine = context.engine(model, request)

    order = order_of(spec, corpus.train)
    ledger = Ledger(context.folder, corpus.train, order, spec.batch_rows)
    quarantine = Quarantine(corpus.train, {*spec.quarantined, *ledger.documents})
    named, asked = order_hash(spec, order, corpus, ledger.documents), order_hash(spec, order, corpus)
    change = partial(_augmented, spec) if spec.augment.changes else None
    loader = Loader(
        corpus.train, order, spec.batch_rows, micro_batch_rows, engine.rank, engine.world, change, quarantine.hide
    )
    # checkpoints go by what was asked for: what is found out on the way changes no step before it
    identity = _identity(spec, inputs, asked, precision)
    checkpoints = _checkpoints(spec, context, engine, identity, _check(spec, engine, objective, corpus, precision))
    epochs_a_step = spec.batch_rows / len(corpus.train)
    context.tracker.dataset("corpus", {**inputs["corpus"].summary, "digest": corpus.content})
    context.tracker.tags({"order_hash": named, "model_hash_start": born, **quarantine.tags()})
    context.events.say(
        f"{parameters / 1e6:.2f} M parameters, {engine.world} workers, {spec.steps} steps of {spec.batch_rows} rows"
        f" ({epochs_a_step * spec.steps:.2f} epochs), {precision.name}: {precision.reason};"
        f" order {named[:12]}, model {born[:12]}"
    )
    filled = corpus.filled_fraction
    if spec.packing != "cut" and filled is not None:  # `cut` leaves padding in the last row of a shard alone
        context.events.say(f"{spec.packing}: {filled:.1%} of the places of the rows hold a token")
    plan = Plan(
        spec.steps, spec.optimizer, spec.seed, spec.validate_every_steps, spec.checkpoint_every_steps,
        spec.max_seconds, spec.max_tokens, spec.recovery, spec.checkpoints.every_minutes,
    )  # fmt: skip
    watch = Watched(context.folder, spec.watch, engine, context.events)
    around = Surroundings(
        tracker=context.tracker,
        events=context.events,
        stop_requested=context.stop.requested,
        keep_best=partial(_keep_weights, engine, context.folder / WEIGHTS_FILE),
        validate=partial(_validate, engine, objective, corpus, spec.validation_rows),
        watch=watch,
        ledger=ledger,
    )
    start = time.perf_counter()
    with watch:
        with checkpoints, Prefetched(loader, spec.prefetch_steps) as batches:
            progress = train(engine, objective, batches, plan, checkpoints, around)
        speed = _speed(engine, spec, corpus, progress, precision)
    engine.barrier()  # all ranks have told what energy they took
    trained = weights_hash(engine.weights())
    context.tracker.tags({"model_hash_end": trained})
    context.events.say(f"ended after step {progress.step}: order {named[:12]}, model {trained[:12]}")
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
            "planned_steps": spec.steps,
            "epochs": epochs_a_step * progress.step,
            **({} if filled is None else {"filled_fraction": filled}),
            **_course(progress),
            "order_hash": named,
            "quarantined": sorted(quarantine.documents),
            "model_hash_start": born,
            "model_hash_end": trained,
            "workers": engine.world,
            "precision": precision._asdict(),
            **speed,
            **(_balance(context, progress) if engine.rank == 0 else {}),
        },
        seconds=time.perf_counter() - start,
    )


def _identity(spec: PretrainSpec, inputs: Inputs, order: str, precision: Precision) -> dict[str, str]:
    """What a checkpoint must share with a training to be continued by it, by name.

    The fields of the spec stand before what follows from them, so that the first name that differs is the cause.
    """
    corpus = inputs["corpus"]
    fields = {f"pretrain.{name}": json.dumps(value) for name, value in meaning_leaves(spec)}
    data = {"tokenizer": corpus.outputs.get(TOKENIZER_FILE, ""), "corpus": corpus.content}
    return fields | data | {"order": order, "precision": precision.name}


def _course(progress: Progress) -> dict[str, Any]:
    """How the training went, for the summary."""
    return {
        "steps": progress.step,
        "ended_by": progress.ended_by,
        "trained_tokens": progress.labels,
        "training_seconds": progress.seconds,
        "best_step": progress.best_step,
        "best_validation": progress.best_scores,
        "skipped_steps": [step + 1 for step in progress.faults.skipped],
        "recomputed_steps": progress.faults.recomputed,
    }


def _check(
    spec: PretrainSpec, engine: Engine, objective: Objective, corpus: TrainingData, precision: Precision
) -> OutputCheck | None:
    """What a model that was read from a checkpoint is asked: the first validation row."""
    if not spec.checkpoints.verify_outputs:
        return None
    row = corpus.validation.gather(torch.zeros(1, dtype=torch.int64))
    return OutputCheck(engine, objective, row, precision.name)


def _checkpoints(
    spec: PretrainSpec, context: Context, engine: Engine, identity: dict[str, str], check: OutputCheck | None
) -> Checkpoints:
    asked = spec.checkpoints
    policy = Retention(spec.keep_checkpoints, asked.keep_best, asked.keep_each_minutes)
    copies = store_copies(asked, policy, context.events)
    return Checkpoints(context.folder / "checkpoints", engine, identity, policy, context.events, check, copies)


def _augmented(spec: PretrainSpec, batch: Batch) -> Batch:
    return {**batch, "values": augmented(batch["values"], spec.augment, spec.seed, batch["sample"])}


def _keep_weights(engine: Engine, path: Path, step: int) -> None:
    weights = engine.weights()
    if engine.rank == 0:
        save_weights(path, weights, {"step": str(step)})


def _validate(engine: Engine, objective: Objective, corpus: TrainingData, rows: int) -> LossSum:
    """The loss on the same validation rows every time, shared out over the ranks."""
    size = len(corpus.validation)
    rows = min(rows, size)
    at_once = _SCORED_ROWS if objective.decomposable else rows
    loader = Loader(corpus.validation, Order(size, seed=0), rows, at_once, engine.rank, engine.world)
    mine = score_batches(engine.model, objective, loader.micro_batches(0), corpus.token_bytes, engine)
    sums = torch.tensor([mine.total, mine.labels, mine.bytes], dtype=torch.float64, device=engine.device)
    total, labels, text_bytes = engine.sum_over_ranks(sums).tolist()
    return LossSum(total, int(labels), int(text_bytes))


def _speed(
    engine: Engine, spec: PretrainSpec, corpus: TrainingData, progress: Progress, precision: Precision
) -> dict[str, Any]:
    """Rows a second; of text, tokens too, and model FLOPs over those of a plain product on all threads."""
    rows_per_second = spec.batch_rows / statistics.median(progress.step_seconds) if progress.step_seconds else None
    if not corpus.packed:
        return {"rows_per_second": rows_per_second} if rows_per_second else {}
    engine.barrier()
    product = matmul_flops_per_second(precision.dtype) if engine.rank == 0 else 0.0  # while the other ranks wait
    engine.barrier()
    flops, formula = flops_per_token(spec.model, corpus.shape), FORMULA
    if rows_per_second is None or engine.rank != 0:  # continued after its last step: nothing was timed
        return {"flops_per_token": flops, "flops_formula": formula}
    tokens_per_second = rows_per_second * spec.model.context_tokens
    return {
        "rows_per_second": rows_per_second,
        "tokens_per_second": tokens_per_second,
        "matmul_flops_per_second": product,
        "model_flops_utilisation": tokens_per_second * flops / product,
        "flops_per_token": flops,
        "flops_formula": formula,
    }


def _balance(context: Context, progress: Progress) -> dict[str, Any]:
    """Where the time of all attempts went, and the energy; logged, said, and as part of the summary."""
    used, taken = goodput(context.folder), energy(context.folder)
    context.tracker.metrics({**used.metrics(), **taken.metrics(progress.labels)})
    context.events.say(f"{used.sentence()}; {taken.sentence(progress.labels)}")
    return {"goodput": used.to_json(), "energy": taken.to_json(progress.labels)}


def _outputs(folder: Path) -> dict[str, str]:
    return {name: sha256_file(folder / name) for name in (MODEL_FILE, WEIGHTS_FILE)}
