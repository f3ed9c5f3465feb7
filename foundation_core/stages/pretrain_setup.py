"""What a pretraining is made of before its first step. Every rank builds the same; shares differ by rank alone.

corpus -> rows -> order, what is hidden -> loader
spec -> model -> engine -> checkpoints, and what a model read from one is asked
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial

import torch

from foundation_core.adapt.transfer import WEIGHTS_FILE
from foundation_core.cost.size import size_of
from foundation_core.data.loading.loader import Batch, Loader
from foundation_core.data.loading.quarantine import Quarantine
from foundation_core.data.stores.shelf import store_shelf
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE
from foundation_core.errors import ConfigError
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.transformer import Reader
from foundation_core.objectives.augment import augmented
from foundation_core.objectives.base import Objective
from foundation_core.specs import PretrainSpec
from foundation_core.specs.base import meaning_leaves
from foundation_core.stages.contract import Context, Inputs
from foundation_core.stages.sample_order import chosen_by, order_hash, order_of
from foundation_core.stages.training_data import TrainingData
from foundation_core.train.beside import Beside, newest_first, recall
from foundation_core.train.blocks import checkpoint_activations, compile_blocks
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.copies import store_copies
from foundation_core.train.engine import Engine, EngineRequest
from foundation_core.train.example import OutputCheck
from foundation_core.train.ledger import Ledger
from foundation_core.train.precision import Precision
from foundation_core.train.retention import Retention
from foundation_core.weights import weights_hash

CHECKPOINTS_FOLDER = "checkpoints"


@dataclass(frozen=True)
class Learner:
    """Who learns.

    Args:
        active: of the parameters, those that a token passes.
        born: hash of the weights before the first step.
        micro_batch_rows: of one forward pass of one rank.
    """

    objective: Objective
    engine: Engine
    precision: Precision
    parameters: int
    active: int
    born: str
    micro_batch_rows: int


@dataclass(frozen=True)
class Reading:
    """What is learned from, in which order.

    Args:
        order_hash: of what is read, documents included that were found to be hidden.
        asked_hash: of what the spec alone says.
    """

    loader: Loader
    ledger: Ledger
    quarantine: Quarantine
    order_hash: str
    asked_hash: str


def open_corpus(spec: PretrainSpec, inputs: Inputs, context: Context) -> TrainingData:
    """The rows of every split; says how many captions do not fit into the context."""
    groups = chosen_by(spec.mixture) or None
    shelf = store_shelf(spec.shards, inputs["corpus"].folder)
    share = (context.local_rank, context.local_world)
    corpus = TrainingData.open(inputs["corpus"], spec.model.context_tokens, spec.packing, groups, shelf, share)
    if cut := corpus.captions_cut():
        context.tracker.tags({"captions_cut": str(cut)})
        context.events.say(f"{cut}: pretrain.model.context_tokens holds no more")
    return corpus


def recall_findings(spec: PretrainSpec, inputs: Inputs, context: Context) -> None:
    """Know what the training found out before, here or elsewhere: it decides how the rest is built. Rank 0 does.

    Raises:
        TransientError: the store of its checkpoints does not answer.
    """
    copies = store_copies(spec.checkpoints, Retention(), context.events)
    if context.rank != 0:
        return
    in_store = copies.manifests() if copies is not None else []
    own = newest_first(context.folder / CHECKPOINTS_FOLDER, in_store, _asked(spec, inputs))
    recall(context.folder, own)


def build_learner(spec: PretrainSpec, corpus: TrainingData, context: Context) -> Learner:
    """A fresh model in an engine, on this rank's device; its numbers are drawn on the CPU and the same everywhere."""
    objective = corpus.objective(spec)
    model = initialize(build(spec.model, corpus.shape), spec.seed)
    _check_reading(spec, objective, model)
    born = weights_hash(model.state_dict())
    model.to(context.device)
    precision = context.choose_precision(spec.precision)
    micro_batch_rows = spec.micro_batch_rows if objective.decomposable else math.ceil(spec.batch_rows / context.world)
    if spec.compile:
        compile_blocks(model)
    if spec.activation_checkpointing:
        checkpoint_activations(model)
    request = EngineRequest(spec.optimizer, precision.name, micro_batch_rows, spec.offload_optimizer)
    size = size_of(spec.model, corpus.shape)
    engine = context.engine(model, request)
    return Learner(objective, engine, precision, size.parameters, size.active, born, micro_batch_rows)


def _check_reading(spec: PretrainSpec, objective: Objective, model: Reader) -> None:
    """Refuse rows that nothing can be asked of, and what names cannot tell: the family of another package whose trunk
    does not read as the objective must."""
    objective.fit(spec.model.context_tokens)
    if objective.reads_both_ways and model.trunk.causal:
        raise ConfigError(
            f"pretrain.objective={spec.objective} asks what stands on both sides, and the trunk of the family"
            f" {spec.model.family} reads only backwards",
            fix="choose next_token or prefix, or a family whose trunk reads both ways",
        )


def open_reading(spec: PretrainSpec, corpus: TrainingData, context: Context, learner: Learner) -> Reading:
    """The order of the rows, without the documents that are hidden."""
    engine, order = learner.engine, order_of(spec, corpus.train)
    engine.barrier()  # rank 0 has recalled what the ledger reads
    ledger = Ledger(context.folder, corpus.train, order, spec.batch_rows)
    quarantine = Quarantine(corpus.train, {*spec.quarantined, *ledger.documents})
    change = partial(_augmented, spec) if spec.augment.changes else None
    loader = Loader(
        corpus.train, order, spec.batch_rows, learner.micro_batch_rows, engine.rank, engine.world, change,
        quarantine.hide,
    )  # fmt: skip
    named, asked = order_hash(spec, order, corpus, ledger.documents), order_hash(spec, order, corpus)
    return Reading(loader, ledger, quarantine, named, asked)


def open_checkpoints(
    spec: PretrainSpec, inputs: Inputs, context: Context, corpus: TrainingData, learner: Learner, reading: Reading
) -> Checkpoints:
    """The checkpoints of the training, which go by what was asked for: what is found out changes no step before it."""
    asked, check = spec.checkpoints, None
    if asked.verify_outputs:
        row = corpus.validation.gather(torch.zeros(1, dtype=torch.int64))
        check = OutputCheck(learner.engine, learner.objective, row, learner.precision.name, compiled=spec.compile)
    policy = Retention(spec.keep_checkpoints, asked.keep_best, asked.keep_each_minutes)
    return Checkpoints(
        context.folder / CHECKPOINTS_FOLDER,
        learner.engine,
        _identity(spec, inputs, reading.asked_hash, learner.precision),
        policy,
        context.events,
        check,
        store_copies(asked, policy, context.events),
        Beside(context.folder, WEIGHTS_FILE),
    )


def _identity(spec: PretrainSpec, inputs: Inputs, order: str, precision: Precision) -> dict[str, str]:
    """What a checkpoint must share with a training to be continued by it, by name.

    What is asked for stands before what follows from it, so that the first name that differs is the cause.
    """
    return _asked(spec, inputs) | {"order": order, "precision": precision.name}


def _asked(spec: PretrainSpec, inputs: Inputs) -> dict[str, str]:
    """Of that, what is known before anything is built: the fields of the spec, and what they are applied to."""
    corpus = inputs["corpus"]
    fields = {f"pretrain.{name}": json.dumps(value) for name, value in meaning_leaves(spec)}
    return fields | {"tokenizer": corpus.outputs.get(TOKENIZER_FILE, ""), "corpus": corpus.content}


def _augmented(spec: PretrainSpec, batch: Batch) -> Batch:
    return {**batch, "values": augmented(batch["values"], spec.augment, spec.seed, batch["sample"])}
