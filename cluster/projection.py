"""What a recipe would take on a cluster that is described and not asked: memory, time, checkpoints, which stage fits.

    recipe, cluster file --> every engine and ZeRO stage, recomputed or not --> memory, step --> the fastest that fits

Everything is arithmetic: nothing is started, no data is read. How near it is to trainings is measured by
`python -m benchmarks.forecast`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from cluster.compatibility import conflicts
from cluster.forecast import row_places, trained_tokens
from foundation_core.cost.memory import Memory, checkpoint_bytes, memory_of
from foundation_core.cost.size import Size, size_of, training_flops
from foundation_core.cost.step_time import StepTime, step_time
from foundation_core.data.sources.documents import open_source
from foundation_core.data.sources.modalities import open_reader
from foundation_core.data.tokens.kinds import vocabulary_of
from foundation_core.errors import ConfigError, SetupError
from foundation_core.shape import SampleShape
from foundation_core.specs import PipelineSpec, PretrainSpec
from foundation_core.specs.cluster import ClusterSpec

EngineName = Literal["torch", "deepspeed"]


@dataclass(frozen=True)
class Training:
    """What is to be trained.

    Args:
        places: of one row that the trunk works on: tokens, and patches.
    """

    spec: PretrainSpec
    size: Size
    vocabulary: int
    places: int

    @staticmethod
    def of(spec: PretrainSpec, vocabulary: int) -> Training:
        """A training on texts."""
        shape = SampleShape(vocabulary=vocabulary)
        return Training(spec, size_of(spec.model, shape), vocabulary, row_places(spec, shape))

    @staticmethod
    def of_recipe(recipe: PipelineSpec) -> Training:
        """That of a recipe; its source is not opened.

        Raises:
            ConfigError: the recipe names what is not installed.
        """
        spec = recipe.pretrain
        shape = open_reader(open_source(recipe.ingest.source), recipe.ingest).shape(
            vocabulary_of(recipe.ingest.tokenizer)
        )
        return Training(spec, size_of(spec.model, shape), shape.vocabulary, row_places(spec, shape))


@dataclass(frozen=True)
class Choice:
    """One way to train on a cluster, and what it takes.

    Args:
        recomputed: whether blocks keep their inputs alone and compute the rest again.
        memory: of one card, beside what is reserved.
        host_bytes: of the optimizer's state that is kept in the memory of the card's host.
        free_bytes: that a card would have left; below 0 it does not fit.
        steps: until the recipe's are done, or one of its budgets is used up.
        days: of these steps, without saves and interruptions.
        utilisation: of the peak, by the FLOPs that the model needs; what is computed again does not count.
        checkpoint_seconds: until it is written, by all nodes at once.
    """

    engine: EngineName
    zero_stage: int
    recomputed: bool
    parameters: int
    active_parameters: int
    memory: Memory
    host_bytes: int
    free_bytes: int
    step: StepTime
    tokens_per_second: float
    steps: int
    days: float
    utilisation: float
    checkpoint_bytes: int
    checkpoint_seconds: float

    @property
    def fits(self) -> bool:
        """Whether a card has the memory."""
        return self.free_bytes >= 0

    @property
    def leaving_seconds(self) -> float:
        """From being asked to leave until a checkpoint is written, at the most: the save begins behind a step."""
        return self.step.total + self.checkpoint_seconds

    @property
    def name(self) -> str:
        """As people call it."""
        engine = "torch" if self.engine == "torch" else f"ZeRO {self.zero_stage}"
        return f"{engine}, recomputed" if self.recomputed else engine


def project(
    training: Training, cluster: ClusterSpec, *, engine: EngineName, zero_stage: int, recomputed: bool
) -> Choice:
    """What one way to train takes."""
    spec = _on(training.spec, cluster).model_copy(update={"engine": engine, "zero_stage": zero_stage})
    size, places, fused = training.size, training.places, cluster.card.fused_attention

    def memory(recomputed: bool) -> Memory:
        return memory_of(spec, size, training.vocabulary, places, fused_attention=fused, recomputed=recomputed)

    needed, host_bytes = memory(recomputed), 0
    if spec.offload_optimizer:
        needed, host_bytes = needed._replace(optimizer=0), needed.optimizer
    step = step_time(cluster, spec, size, memory(False), places, recomputed=recomputed)
    trained_per_second = spec.batch_rows * places / step.total
    peak = cluster.card.peak_flops_per_second[spec.precision] * cluster.ranks
    saved, steps = checkpoint_bytes(spec, size), _steps(spec, places, step.total)
    return Choice(
        engine=engine,
        zero_stage=zero_stage,
        recomputed=recomputed,
        parameters=size.parameters,
        active_parameters=size.active,
        memory=needed,
        host_bytes=host_bytes,
        free_bytes=cluster.card.memory_bytes - cluster.card.reserved_bytes - needed.total,
        step=step,
        tokens_per_second=trained_per_second,
        steps=steps,
        days=steps * step.total / 86_400,
        utilisation=trained_per_second * training_flops(size, places) / peak,
        checkpoint_bytes=saved,
        checkpoint_seconds=saved / cluster.store_bytes_per_second,
    )


def choices(training: Training, cluster: ClusterSpec) -> list[Choice]:
    """Every way to train that no rule of `compatibility` refuses, the simplest first.

    Raises:
        ConfigError: the batch has fewer rows than the cluster has cards, or the card cannot multiply the precision.
    """
    _check(training.spec, cluster)
    ways: list[tuple[EngineName, int]] = [("torch", 0), *(("deepspeed", stage) for stage in range(4))]
    return [
        project(training, cluster, engine=engine, zero_stage=stage, recomputed=recomputed)
        for recomputed in (False, True)
        for engine, stage in ways
        if not conflicts(training.spec.model_copy(update={"engine": engine, "zero_stage": stage}))
    ]


def recommended(found: Sequence[Choice], training: Training, cluster: ClusterSpec) -> Choice:
    """The way that takes the least time among those that fit; of equals, the first.

    Raises:
        SetupError: none fits.
    """
    fitting = [choice for choice in found if choice.fits]
    if not fitting:
        least = min(found, key=lambda choice: choice.memory.total)
        room = cluster.card.memory_bytes - cluster.card.reserved_bytes
        raise SetupError(
            f"{least.parameters / 1e9:.2f} G parameters need {least.memory.total / 1e9:.1f} GB of each card with"
            f" {least.name}, the smallest way, and a {cluster.card.name} has {room / 1e9:.1f} GB for them",
            fix=_smaller(training, cluster),
        )
    return min(fitting, key=lambda choice: choice.step.total)


def check_asked(found: Sequence[Choice], best: Choice, training: Training, cluster: ClusterSpec) -> Choice:
    """What the recipe itself asks for.

    Raises:
        SetupError: it does not fit, and another way does.
    """
    spec = training.spec
    wanted = (spec.engine, 0 if spec.engine == "torch" else spec.zero_stage, spec.activation_checkpointing)
    asked = next(one for one in found if (one.engine, one.zero_stage, one.recomputed) == wanted)
    if not asked.fits:
        room = cluster.card.memory_bytes - cluster.card.reserved_bytes
        raise SetupError(
            f"the recipe trains with {asked.name}, which needs {asked.memory.total / 1e9:.1f} GB of each card, and a"
            f" {cluster.card.name} has {room / 1e9:.1f} GB for it",
            allowed=", ".join(choice.name for choice in found if choice.fits),
            fix=f"set --pretrain.engine {best.engine} --pretrain.zero_stage {best.zero_stage}"
            f" --pretrain.activation_checkpointing {str(best.recomputed).lower()}",
        )
    return asked


def _on(spec: PretrainSpec, cluster: ClusterSpec) -> PretrainSpec:
    """The training with a worker for each card, in a precision that the card has."""
    precision = spec.precision
    if precision == "auto":
        precision = "bf16" if "bf16" in cluster.card.peak_flops_per_second else "float32"
    return spec.model_copy(update={"workers": cluster.ranks, "precision": precision})


def _steps(spec: PretrainSpec, places: int, step_seconds: float) -> int:
    """Steps until the first end: a budget ends a training behind the step that uses it up."""
    steps = ceil(trained_tokens(spec, places) / (spec.batch_rows * places))
    return steps if spec.max_seconds is None else min(steps, ceil(spec.max_seconds / step_seconds))


def _check(spec: PretrainSpec, cluster: ClusterSpec) -> None:
    if spec.batch_rows < cluster.ranks:
        raise ConfigError(
            f"pretrain.batch_rows={spec.batch_rows} gives {cluster.ranks} cards less than a row each",
            allowed=f"{cluster.ranks} or more",
            fix="set --pretrain.batch_rows to a multiple of it, or take a smaller cluster",
        )
    if spec.precision not in ("auto", *cluster.card.peak_flops_per_second):
        raise ConfigError(
            f"pretrain.precision is {spec.precision}, and the cluster file has no peak for it",
            allowed=", ".join(["auto", *cluster.card.peak_flops_per_second]),
        )


def _smaller(training: Training, cluster: ClusterSpec) -> str:
    rows = min(training.spec.micro_batch_rows, ceil(training.spec.batch_rows / cluster.ranks))
    if rows > 1:
        return f"lower --pretrain.micro_batch_rows from {rows}, or take a smaller model or more cards"
    return "take a smaller model or context, more cards, or cards with more memory"
