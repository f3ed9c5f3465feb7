"""What a run will take before anything is held: parameters, tokens, epochs, memory, disk, time. By arithmetic alone.

Time and bytes a token come from earlier results of the data folder; where there is none, from the machine that the
README describes, and the forecast says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cluster.planning import Step
from foundation_core.cost.memory import Memory, memory_of
from foundation_core.cost.size import Size, size_of, training_flops
from foundation_core.data.sources.documents import open_source
from foundation_core.data.sources.modalities import open_reader
from foundation_core.data.tokens.kinds import vocabulary_of
from foundation_core.shape import SampleShape
from foundation_core.specs import FinetuneSpec, PipelineSpec, PretrainSpec
from foundation_core.stages.ingest_needs import DISK_FACTOR
from foundation_core.store import Result, Store

REFERENCE_FLOPS = 35e9
"""FLOP/s that a training gets out of one CPU, on the machine that the README describes."""
REFERENCE_SECONDS = {"evaluate": 10.0, "publish": 4.0}
REFERENCE_INGEST_BYTES_PER_SECOND = 0.9e6
REFERENCE_BYTES_PER_TOKEN = 3.7
START_SECONDS = {"ingest": 8.0, "pretrain": 25.0, "finetune": 9.0, "evaluate": 1.0, "publish": 1.0}
"""Services, imports and processes before the first step of a stage, there."""

WORKER_BYTES = 500_000_000
"""A worker that imported torch, DeepSpeed and Ray, before it has a model."""
RESIDENT_PER_PASSING_BYTE = 1.4
"""What malloc holds for tensors that come and go in every step: it gives few pages back. Fitted to peaks of resident
memory; `tests/cluster/test_forecast.py` holds the sum to new ones."""


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Args:
        parameters: of the model.
        active_parameters: those of them that a token passes.
        unit: what the corpus is counted in: tokens of text, or samples.
        corpus_size: of the training split.
        trained_size: what pretraining reads, repetitions included.
        epochs: by source, how often pretraining reads its documents.
        state_bytes: of one worker: weights, gradients and optimizer state; exact.
        worker_bytes: of one worker: state, activations and libraries; about.
        disk_bytes: below the data folder, of the stages that run; about.
        seconds: of each stage that runs; about.
        basis: where the seconds come from.
    """

    parameters: int
    active_parameters: int
    unit: str
    corpus_size: int
    trained_size: int
    epochs: Mapping[str, float]
    state_bytes: int
    worker_bytes: int
    disk_bytes: int
    seconds: Mapping[str, float]
    basis: str


def forecast(recipe: PipelineSpec, steps: Sequence[Step], store: Store) -> Forecast:
    """What the steps of a plan that are not found will take."""
    source, spec = open_source(recipe.ingest.source), recipe.pretrain
    files = source.files()
    source_bytes = sum(file.bytes for file in files)
    shape = open_reader(source, recipe.ingest).shape(vocabulary_of(recipe.ingest.tokenizer))
    size, places = size_of(spec.model, shape), row_places(spec, shape)
    is_text = not shape.channels
    if is_text:
        corpus, trained = _corpus_tokens(recipe, steps[0].result, source_bytes, store), trained_tokens(spec, places)
    else:
        corpus, trained = _corpus_samples(recipe, steps[0].result, len(files)), spec.steps * spec.batch_rows
    work = _Work(size, places, trained if is_text else trained * places)
    flops = _measured_flops(store)
    memory = memory_of(
        spec, size, shape.vocabulary, places, fused_attention=False, recomputed=spec.activation_checkpointing
    )
    due = [step.stage for step in steps if step.result is None]
    return Forecast(
        parameters=size.parameters,
        active_parameters=size.active,
        unit="tokens" if is_text else "samples",
        corpus_size=corpus,
        trained_size=trained,
        epochs={recipe.ingest.source.kind: trained / max(1, corpus)},
        state_bytes=memory.state,
        worker_bytes=WORKER_BYTES + resident_bytes(memory),
        disk_bytes=sum(_disk_bytes(stage, recipe, size, source_bytes) for stage in due),
        seconds={stage: _seconds(stage, recipe, work, source_bytes, store, flops) for stage in due},
        basis="as measured in this data folder" if flops else "a guess from two cores without bfloat16; none ran here",
    )


def resident_bytes(memory: Memory) -> int:
    """What a worker on a CPU takes of the system, for what it holds."""
    passing = memory.activations + memory.logits
    return memory.total + round((RESIDENT_PER_PASSING_BYTE - 1) * passing)


def row_places(spec: PretrainSpec, shape: SampleShape) -> int:
    """Places of one row that a trunk works on: tokens of text or caption, and patches."""
    height, width = spec.model.patch
    patches = (shape.height // height) * (shape.width // width) if shape.channels else 0
    return patches + (spec.model.context_tokens if shape.vocabulary else 0)


def _corpus_tokens(recipe: PipelineSpec, corpus: Result | None, source_bytes: int, store: Store) -> int:
    if corpus is not None:
        return int(corpus.summary["splits"]["train"]["tokens"])
    earlier = _of_texts(store)
    bytes_per_token = earlier[0].summary["bytes_per_token"] if earlier else REFERENCE_BYTES_PER_TOKEN
    split = recipe.ingest.split
    return round(source_bytes * (1 - split.validation_fraction - split.test_fraction) / bytes_per_token)


def _corpus_samples(recipe: PipelineSpec, corpus: Result | None, files: int) -> int:
    if corpus is not None:
        return int(corpus.summary["splits"]["train"]["documents"])
    split = recipe.ingest.split
    return round(files * (1 - split.validation_fraction - split.test_fraction))


def _of_texts(store: Store) -> list[Result]:
    """Earlier ingestions that made tokens, the newest first."""
    return [result for result in store.history("ingest") if result.summary["tokens"]]


def trained_tokens(spec: PretrainSpec, places: int) -> int:
    """Places of rows that pretraining works on by its steps, or by its budget of tokens if that is used up before."""
    tokens = spec.steps * spec.batch_rows * places
    return tokens if spec.max_tokens is None else min(tokens, spec.max_tokens)


def _measured_flops(store: Store) -> float:
    """FLOP/s of the newest training of this data folder; 0 if there is none."""
    for result in store.history("pretrain"):
        if "tokens_per_second" in result.summary:
            return float(result.summary["tokens_per_second"] * result.summary["flops_per_token"])
    return 0.0


class _Work(NamedTuple):
    """How much a training computes.

    Args:
        places: of one row.
        trained: places that pretraining works on.
    """

    size: Size
    places: int
    trained: int


def _seconds(stage: str, recipe: PipelineSpec, work: _Work, source_bytes: int, store: Store, flops: float) -> float:
    """Start and work of a stage."""
    start, spec = START_SECONDS[stage], recipe.pretrain
    earlier = store.history(stage)
    if stage == "ingest":
        rate, earlier = REFERENCE_INGEST_BYTES_PER_SECOND, _of_texts(store)
        if earlier:
            rate = earlier[0].summary["text_bytes"] / max(0.1, earlier[0].seconds)
        return start + source_bytes / rate
    if stage == "pretrain":
        needed = work.trained * training_flops(work.size, work.places)
        seconds = needed / (flops or REFERENCE_FLOPS * spec.workers * spec.threads_per_worker)
        return start + (seconds if spec.max_seconds is None else min(seconds, spec.max_seconds))
    if stage == "finetune":
        return start + _finetune_flops(recipe, work) / (flops or REFERENCE_FLOPS * recipe.finetune.workers)
    return start + (earlier[0].seconds if earlier else REFERENCE_SECONDS[stage])


def _finetune_flops(recipe: PipelineSpec, work: _Work) -> float:
    spec: FinetuneSpec = recipe.finetune
    arms = 4
    trials = arms * (len(spec.lr) + len(spec.seeds) - 1)  # rates with the first seed, the best one with the others
    places = min(spec.fragment_tokens, work.places)
    without_head = work.size.multiplying - vocabulary_of(recipe.ingest.tokenizer) * recipe.pretrain.model.trunk.width
    per_place = training_flops(work.size._replace(multiplying=max(0, without_head)), places)
    return trials * spec.steps * spec.batch_rows * places * per_place


def _disk_bytes(stage: str, recipe: PipelineSpec, size: Size, source_bytes: int) -> int:
    weights = 4 * size.parameters
    saved = 4 * weights  # weights, their master copy, two averages
    if stage == "ingest":
        return round(DISK_FACTOR * source_bytes)
    if stage == "pretrain":
        staying = recipe.pretrain.keep_checkpoints + recipe.pretrain.checkpoints.keep_best
        return weights + saved * (staying + 1)  # one more while the next is written
    return {"finetune": 4 * weights, "evaluate": 0, "publish": 4 * weights}[stage]
