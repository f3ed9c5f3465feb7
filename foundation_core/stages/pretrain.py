"""Pretrain: rows -> trunk. Every rank runs this same function; rank 0 writes.

shards -> rows -> order -> loader -> loop (step, validate, save) -> best weights
"""

from __future__ import annotations

import gc
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foundation_core.adapt.transfer import MODEL_FILE, MODEL_VERSION, WEIGHTS_FILE
from foundation_core.cost.flops import FORMULA, flops_per_token
from foundation_core.cost.size import size_told
from foundation_core.data.loading.loader import Loader
from foundation_core.data.loading.order import Order
from foundation_core.data.loading.prefetch import Prefetched
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE
from foundation_core.errors import DataError, Stopped
from foundation_core.evaluate.likelihood import score_batches
from foundation_core.evaluate.metrics import LossSum
from foundation_core.evaluate.speed import matmul_flops_per_second
from foundation_core.files import sha256_file, write_json
from foundation_core.model.stems import TokenStem
from foundation_core.objectives.base import Objective
from foundation_core.specs import PretrainSpec
from foundation_core.stages.contract import Context, Inputs
from foundation_core.stages.pretrain_setup import (
    Learner,
    Reading,
    build_learner,
    open_checkpoints,
    open_corpus,
    open_reading,
    recall_findings,
)
from foundation_core.stages.training_data import TrainingData
from foundation_core.store import StageResult
from foundation_core.train.energy import energy
from foundation_core.train.engine import Engine
from foundation_core.train.goodput import goodput
from foundation_core.train.loop import Plan, Progress, Surroundings, train
from foundation_core.train.precision import Precision
from foundation_core.train.recovery import RewindError
from foundation_core.train.watch import Watched
from foundation_core.weights import save_weights, weights_hash

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
    corpus = open_corpus(spec, inputs, context)
    recall_findings(spec, inputs, context)
    learner = build_learner(spec, corpus, context)
    reading = open_reading(spec, corpus, context, learner)
    checkpoints = open_checkpoints(spec, inputs, context, corpus, learner, reading)
    checkpoints.when_restored = partial(_introduce, spec, inputs, context, corpus, learner, reading)
    engine, objective = learner.engine, learner.objective
    plan = Plan(
        spec.steps, spec.optimizer, spec.seed, spec.validate_every_steps, spec.checkpoint_every_steps,
        spec.max_seconds, spec.max_tokens, spec.recovery, spec.checkpoints.every_minutes,
    )  # fmt: skip
    watch = Watched(context.folder, spec.patient_watch, engine, context.events)
    around = Surroundings(
        tracker=context.tracker,
        events=context.events,
        stop_requested=context.stop.requested,
        keep_best=partial(_keep_weights, engine, context.folder / WEIGHTS_FILE),
        validate=partial(_validate, engine, objective, corpus, spec.validation_rows),
        validation_rows=-(-min(spec.validation_rows, len(corpus.validation)) // engine.world),
        watch=watch,
        ledger=reading.ledger,
    )
    start = time.perf_counter()
    with watch:
        with checkpoints, Prefetched(reading.loader, spec.prefetch_steps) as batches, watch.leaving():
            try:
                progress = train(engine, objective, batches, plan, checkpoints, around)
            except Stopped:  # its last step is saved: what is left here is where the next try begins
                _tell_model(f"left after step {checkpoints.step}", context, reading, _named(engine))
                raise
        speed = _speed(engine, spec, corpus, progress, learner.precision)
    engine.barrier()  # all ranks have told what energy they took
    trained = weights_hash(engine.weights())
    context.tracker.tags({"model_hash_end": trained})
    _tell_model(f"ended after step {progress.step}", context, reading, trained)
    context.events.phase("done")
    if engine.rank == 0:
        write_json(
            context.folder / MODEL_FILE,
            {
                "version": MODEL_VERSION,
                "model": spec.model.model_dump(mode="json"),
                "shape": corpus.shape.to_json(),
                "tokenizer": inputs["corpus"].outputs.get(TOKENIZER_FILE) if _reads_tokens(engine.model) else None,
            },
        )
        context.tracker.metrics({f"speed/{name}": value for name, value in speed.items() if name in _LOGGED})
    filled, cut = corpus.filled_fraction, corpus.captions_cut()
    return StageResult(
        outputs=_outputs(context.folder) if engine.rank == 0 else {},
        summary={
            "parameters": learner.parameters,
            "active_parameters": learner.active,
            "planned_steps": spec.steps,
            "epochs": spec.batch_rows / len(corpus.train) * progress.step,
            **({} if filled is None else {"filled_fraction": filled}),
            **({} if cut is None else {"captions_cut": cut._asdict()}),
            **_course(progress),
            "order_hash": reading.order_hash,
            "quarantined": sorted(reading.quarantine.documents),
            "model_hash_start": learner.born,
            "model_hash_end": trained,
            "workers": engine.world,
            "precision": learner.precision._asdict(),
            **speed,
            **(_balance(context, progress) if engine.rank == 0 else {}),
        },
        seconds=time.perf_counter() - start,
    )


def _introduce(
    spec: PretrainSpec, inputs: Inputs, context: Context, corpus: TrainingData, learner: Learner, reading: Reading,
    step: int,
) -> None:  # fmt: skip
    """Say what is about to be trained, from which step on, and on what."""
    context.tracker.dataset("corpus", {**inputs["corpus"].summary, "digest": corpus.content})
    hashes = {"order_hash": reading.order_hash, "model_hash_start": learner.born}
    begins = learner.born
    if step:
        begins = hashes["model_hash_continued"] = _named(learner.engine)
    context.tracker.tags({**hashes, **reading.quarantine.tags()})
    epochs = spec.batch_rows / len(corpus.train) * spec.steps
    size = size_told(learner.parameters, learner.active)
    context.events.say(
        f"{size} parameters, {learner.engine.world} workers, {spec.steps} steps of {spec.batch_rows} rows"
        f" ({epochs:.2f} epochs), {learner.precision.name}: {learner.precision.reason};"
        f" order {reading.order_hash[:12]}, model {begins[:12]}"
    )
    if spec.packing != "cut" and corpus.filled_fraction is not None:  # `cut` pads the last row of a shard alone
        context.events.say(f"{spec.packing}: {corpus.filled_fraction:.1%} of the places of the rows hold a token")


def _named(engine: Engine) -> str:
    """The hash of the weights as they are, on rank 0, whose word it is; a collective call."""
    weights = engine.weights()
    return weights_hash(weights) if engine.rank == 0 else ""


def _tell_model(when: str, context: Context, reading: Reading, model: str) -> None:
    """Say which model there is, by the words that the next try says it with if it goes on from it."""
    context.events.say(f"{when}: order {reading.order_hash[:12]}, model {model[:12]}")


def _reads_tokens(model: nn.Module) -> bool:
    """Whether any part of it knows tokens by their numbers; a corpus of captioned images has a tokenizer anyhow."""
    return any(isinstance(part, TokenStem) for part in model.modules())


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


def _keep_weights(engine: Engine, path: Path, step: int) -> None:
    weights = engine.weights()
    if engine.rank == 0:
        save_weights(path, weights, {"step": str(step)})


def _validate(engine: Engine, objective: Objective, corpus: TrainingData, rows: int, at_once: int) -> LossSum:
    """The loss on the same validation rows every time, shared out over the ranks.

    Args:
        at_once: rows of one forward pass, where the objective needs no others beside them.
    """
    size = len(corpus.validation)
    rows = min(rows, size)
    at_once = at_once if objective.decomposable else rows
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
    # while the other ranks wait
    product = matmul_flops_per_second(precision.dtype, device=engine.device) if engine.rank == 0 else 0.0
    product *= (
        engine.world if engine.device.type == "cuda" else 1
    )  # each has its own; of the CPU it is that of all threads
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
    if not (folder / WEIGHTS_FILE).exists():
        raise DataError(
            f"{folder / WEIGHTS_FILE} is not there: the best weights were removed while the training ran",
            fix="run the same command again: it goes on from the newest checkpoint that has them",
        )
    return {name: sha256_file(folder / name) for name in (MODEL_FILE, WEIGHTS_FILE)}
