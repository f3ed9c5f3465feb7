"""Every Spec: one definition that serves Python, the YAML recipe, dotted overrides on the command line and a form.

Those of ingestion are in spec_ingest.py and spec_quality.py; what they all are stands in spec_base.py. Nothing here
imports torch: a command line or a form loads in a blink.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, model_validator

from foundation_core.fitting import (
    PATCH_FRACTION,
    TEXT_FRACTION,
    Choice,
    Spans,
    is_about_captions,
    misfits,
    reads_text,
    room_for_answer,
)
from foundation_core.spec_base import Role, Spec, described_leaves, leaves, placement, presentation
from foundation_core.spec_checkpoints import CheckpointSpec
from foundation_core.spec_decontamination import DecontaminationSpec, EvaluationSetSpec
from foundation_core.spec_ingest import (
    LOCAL_WORKERS,
    AudioSpec,
    ImageSpec,
    IngestSpec,
    SeriesSpec,
    SourceSpec,
    SpecialTokensSpec,
    SplitSpec,
    TokenizerSpec,
)
from foundation_core.spec_loading import MixedGroupSpec, MixtureSpec, Packing, ShardStoreSpec, WeightChangeSpec
from foundation_core.spec_model import ModelSpec, RunsSpec, TrunkSpec
from foundation_core.spec_optimizer import MuonSpec, OptimizerSpec, TuningOptimizerSpec
from foundation_core.spec_quality import (
    FilterSpec,
    FuzzyDedupSpec,
    GopherSpec,
    ParagraphDedupSpec,
    QualitySpec,
    RepetitionSpec,
)
from foundation_core.spec_recovery import RecoverySpec
from foundation_core.spec_watch import WatchSpec
from foundation_core.spec_workers import least_is_not_above_most, range_of_workers
from foundation_core.spec_writing import WritingSpec

__all__ = [
    "LOCAL_WORKERS",
    "AudioSpec", "AugmentSpec", "CheckpointSpec", "DecontaminationSpec", "EvaluateSpec", "EvaluationSetSpec",
    "FilterSpec", "FinetuneSpec", "FuzzyDedupSpec", "GopherSpec", "ImageSpec", "IngestSpec", "MaskingSpec",
    "MixedGroupSpec", "MixtureSpec", "ModelSpec", "MuonSpec", "OptimizerSpec", "ParagraphDedupSpec", "PipelineSpec",
    "PretrainSpec", "PublishSpec", "QualitySpec", "RecoverySpec", "RepetitionSpec", "Role", "RunsSpec", "SeriesSpec",
    "ShardStoreSpec", "SourceSpec", "Spec", "SpecialTokensSpec", "SplitSpec", "TokenizerSpec", "TrunkSpec",
    "TuningOptimizerSpec", "WatchSpec", "WeightChangeSpec", "WritingSpec", "described_leaves", "leaves", "placement",
    "presentation",
]  # fmt: skip

# --------------------------------------------------------------------------------------------------------- pretrain


class MaskingSpec(Spec):
    """What an objective hides; those that hide nothing do not read it."""

    fraction: float | None = Field(None, gt=0, lt=1)
    """Share of tokens or patches that are hidden. Empty: the usual, 0.15 of a text, 0.75 of patches."""
    span_tokens: float = Field(3.0, ge=1)
    """Mean length of a hidden span, for span_corruption."""
    whole_words: bool = False
    """Hide words with all their tokens, for masked_token."""

    @property
    def of_text(self) -> float:
        """The share of a text's tokens that is hidden."""
        return TEXT_FRACTION if self.fraction is None else self.fraction

    @property
    def of_patches(self) -> float:
        """The share of a sample's patches that is hidden."""
        return PATCH_FRACTION if self.fraction is None else self.fraction


class AugmentSpec(Spec):
    """How values differ each time that they are seen in training: at random, up to these limits. Of no use to text."""

    shift: tuple[NonNegativeFloat, NonNegativeFloat] = (0.0, 0.0)
    """Rows and columns that they are moved by, either way: pixels, or mel bins and frames."""
    rotate_degrees: float = Field(0.0, ge=0, le=180)
    """How far they are turned, either way."""
    scale: float = Field(0.0, ge=0, lt=1)
    """Share by which they are stretched or shrunk, in height and in width."""
    shear: float = Field(0.0, ge=0, lt=1)
    """Columns that a row is moved by against the one below it, either way."""

    outside: Literal["lowest", "border"] = "lowest"
    """What comes in from outside: the sample's lowest value, which is black or silence, or the nearest value inside."""

    @property
    def changes(self) -> bool:
        """Whether anything is changed."""
        return any((*self.shift, self.rotate_degrees, self.scale, self.shear))


class PretrainSpec(Spec):
    """Self-supervised training of a trunk."""

    model: ModelSpec = ModelSpec()
    """What is trained."""
    objective: str = "next_token"
    """Registered objective: next_token, prefix, balanced_next_token, masked_token, span_corruption, masked_patches,
    contrastive, captioning, or one that an installed package adds."""
    masking: MaskingSpec = MaskingSpec()
    """What the objective hides."""
    augment: AugmentSpec = AugmentSpec()
    """How images, recordings and series differ each time that they are seen."""
    steps: int = Field(200, ge=1)
    """Optimizer steps."""
    max_seconds: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Seconds of steps, validations and saves, interruptions aside: training ends after the step that reaches them, and
    the next stages go on with what there is. The schedule still belongs to `steps`. Empty: no limit."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens to learn from: training ends after the step that reaches them, and the next stages go on with what there
    is. The schedule still belongs to `steps`. Empty: no limit."""
    batch_rows: int = Field(16, ge=1)
    """Rows of context_tokens in one optimizer step, over all workers."""
    packing: Packing = "cut"
    """How training rows are made of texts: documents end to end, cut each context_tokens; best_fit, where none is cut
    that fits into a row; or one_document a row."""
    mixture: MixtureSpec = MixtureSpec()
    """Groups of the corpus in given proportions."""
    quarantined: tuple[str, ...] = ()
    """Ids of training documents that are hidden as if they were padding; their rows keep their places in the order."""
    recovery: RecoverySpec = RecoverySpec()
    """What happens when a step's numbers are not finite, or leap, or when a device's memory is full."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """Optimizer and schedule."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """Number format of the products; auto takes bf16 where this hardware multiplies it faster, and says why."""
    validate_every_steps: int = Field(50, ge=1)
    """Steps between validations."""
    validation_rows: int = Field(64, ge=1)
    """Rows of the validation split that are scored each time; the same rows always."""
    checkpoint_every_steps: int = placement(50, ge=1)
    """Steps between checkpoints: the most that a lost worker can cost."""
    keep_checkpoints: int = placement(2, ge=1)
    """Newest checkpoints that stay on disk, beside the best weights."""
    checkpoints: CheckpointSpec = placement(CheckpointSpec())
    """What else is saved, what else stays, and where it is copied to."""
    seed: int = 0
    """Initialisation, order of the samples, masking."""
    workers: int = placement(2, ge=1)
    """Data-parallel workers, one process each; of [1, 4] the second, and the first is least_workers."""
    least_workers: int | None = placement(None, ge=1)
    """Workers with which training begins or goes on while there is no room for more. Empty: as many as workers."""
    threads_per_worker: int = placement(1, ge=1)
    """CPU threads of each worker."""
    device: Literal["auto", "cpu", "cuda"] = placement("auto")
    """What each worker computes on: its CPUs, or a GPU of its own (cuda); auto takes GPUs where Ray's nodes have one
    for each of the fewest workers and torch is built for them. No GPU has run it yet."""
    micro_batch_rows: int = placement(8, ge=1)
    """Rows of one forward pass of one worker; smaller saves memory, the gradient stays the same."""
    shards: ShardStoreSpec = placement(ShardStoreSpec())
    """Where the corpus's shards lie, if not in the data folder."""
    prefetch_steps: int = placement(2, ge=0)
    """Steps whose rows are made ready beside the training, by a thread of each worker; 0 has no such thread."""
    engine: Literal["deepspeed", "torch"] = placement("deepspeed")
    """What holds parameters, gradients and optimizer state."""
    zero_stage: Literal[0, 1, 2, 3] = placement(1)
    """What DeepSpeed shards over the workers: nothing, optimizer state, gradients too, parameters too."""
    offload_optimizer: bool = placement(False)
    """Keep optimizer state in the memory of the CPU and move the parameters there; for DeepSpeed's stages 1 to 3."""
    activation_checkpointing: bool = placement(False)
    """Keep what enters each block alone and compute the rest again for the gradient: less memory, more time."""
    compile: bool = placement(False)
    """Have torch compile the blocks; on a CPU that needs a C++ compiler on every worker."""
    watch: WatchSpec = placement(WatchSpec())
    """Hangs, slow workers, energy."""

    _range = model_validator(mode="before")(range_of_workers)
    _order = model_validator(mode="after")(least_is_not_above_most)

    @property
    def patient_watch(self) -> WatchSpec:
        """`watch`, with time before the first step for a store of checkpoints that is away."""
        if self.checkpoints.store is None:
            return self.watch
        first = max(self.watch.first_seconds, 3 * 60 * self.checkpoints.store_patience_minutes)
        return self.watch.model_copy(update={"first_seconds": first})

    @property
    def fewest_workers(self) -> int:
        """The least number of workers that an attempt begins with."""
        return self.workers if self.least_workers is None else self.least_workers


# --------------------------------------------------------------------------------------------------------- finetune


LEAST_ANSWER_TOKENS, USUAL_ANSWER_TOKENS = 4, 48


class FinetuneSpec(Spec):
    """Transfer learning: the pretrained trunk and a fresh one, with few labels and with all, on one task."""

    task: str = "package_of_fragment"
    """Registered task: package_of_fragment, token_types, docstring_of_function, complete_function, continue_text
    (text); class_of_sample, next_values, caption_of_sample, caption_naming_class (values); or one that an installed
    package adds."""
    classes: int = Field(12, ge=2)
    """Classes, at the most; those with the most training files are taken."""
    least_classes: int = Field(2, ge=2)
    """Classes, at the least: a corpus that holds fewer is refused."""
    least_files: int = Field(3, ge=1)
    """Training files that a group needs to become a class."""
    fragment_tokens: int = Field(64, ge=8)
    """Tokens of a fragment; of a task that writes, those that are read, at the most."""
    answer_tokens: int = Field(USUAL_ANSWER_TOKENS, ge=LEAST_ANSWER_TOKENS)
    """Tokens of an answer, at the most, for tasks that write. Not named: of a caption no more than context_tokens."""
    beams: int = Field(1, ge=1)
    """Candidates that tasks that write keep side by side, to find the most probable answer as a whole; 1: the most
    probable token each time."""
    few_labels: int = Field(60, ge=1)
    """Training rows a class in the few-labels arms; rows in all, where a row has no class. Tasks that write, and
    next_values, have no such arms."""
    all_labels: int = Field(240, ge=1)
    """Training rows a class in the all-labels arms; a group needs as many to become a class. Where a row has no class,
    rows in all. Tasks on values take all that there are."""
    evaluation_labels: int = Field(24, ge=1)
    """Validation rows a class, and test rows a class, counted as `all_labels` are."""
    augment: AugmentSpec = AugmentSpec()
    """How values differ each time that they are seen in the training of class_of_sample."""
    pool: Literal["mean", "last", "first"] = "mean"
    """How the tokens of a row become one vector; first is a class token's place."""
    adapt: Literal["full", "probe"] = "full"
    """What moves: every parameter, or the new head alone."""
    steps: int = Field(80, ge=1)
    """Optimizer steps, the same for every arm."""
    batch_rows: int = Field(12, ge=1)
    """Rows in one optimizer step."""
    lr: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    """Peak learning rates that are tried; each arm keeps its best on validation."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each arm; the figures are reported with their spread."""
    optimizer: TuningOptimizerSpec = TuningOptimizerSpec()
    """Optimizer and schedule; its lr is replaced by each of `lr`."""
    workers: int = placement(2, ge=1)
    """Trials that run side by side, one process each."""

    @model_validator(mode="after")
    def _has_trials(self) -> Self:
        if not self.lr or min(self.lr) <= 0 or len(set(self.lr)) < len(self.lr):
            raise ValueError(f"lr needs one or more positive learning rates, each once, found {list(self.lr)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds needs one or more seeds, each once, found {list(self.seeds)}")
        if self.least_classes > self.classes:
            raise ValueError(f"least_classes={self.least_classes} must not exceed classes={self.classes}")
        if self.few_labels > self.all_labels:
            raise ValueError(f"few_labels={self.few_labels} must not exceed all_labels={self.all_labels}")
        return self


# ----------------------------------------------------------------------------------------------- evaluate, publish


class EvaluateSpec(WritingSpec):
    """Scores on the test split, samples and how they are written, and speed."""

    test_rows: int = Field(256, ge=1)
    """Rows of the test split that are scored, at the most."""
    samples: int = Field(12, ge=1)
    """Texts that are generated, or samples that are drawn: of whatever the model can make."""
    sample_tokens: int = Field(96, ge=8)
    """Tokens of each generated text, at the most."""
    prompts: tuple[str, ...] = ()
    """Texts that a model of text continues, for the log and the model card."""
    templates: tuple[str, ...] = ()
    """Captions with {} where a class is named: how a dual encoder is asked for the class of a sample. Those that no
    training caption has are the honest question. Empty: the training captions of each class."""
    class_names: tuple[str, ...] = ()
    """What goes into the templates, a name for each group of the corpus, in the order of the groups' own names."""
    seed: int = 0
    """Prompts and sampling."""
    threads: int = placement(2, ge=1)
    """CPU threads."""

    @model_validator(mode="after")
    def _prompts_and_templates_can_be_asked(self) -> Self:
        if wrong := [template for template in self.templates if template.count("{}") != 1]:
            raise ValueError(f"a template needs {{}} once, found {wrong[0]!r}")
        if not all(self.prompts):
            raise ValueError("prompts holds an empty one: there is nothing to continue")
        if bool(self.templates) != bool(self.class_names):
            raise ValueError("templates and class_names need each other: the names go into the templates")
        return self


class PublishSpec(Spec):
    """Package, check, log, register."""

    model_name: str = Field("foundation-quickstart", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in the model registry."""
    alias: str = Field("candidate", pattern=r"^[a-z][a-z0-9_-]*$")
    """Alias that points to the new version."""


class PipelineSpec(Spec):
    """One recipe: from raw files to a registered model."""

    name: str = Field("quickstart", pattern=r"^[a-z0-9][a-z0-9-]*$", json_schema_extra={"role": "presentation"})
    """Names the run and its folders."""
    ingest: IngestSpec = IngestSpec()
    """Raw files -> tokens."""
    pretrain: PretrainSpec = PretrainSpec()
    """Tokens -> trunk."""
    finetune: FinetuneSpec = FinetuneSpec()
    """Trunk -> task models."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """Models -> scores."""
    publish: PublishSpec = PublishSpec()
    """Models and scores -> registry."""
    last: Literal["ingest", "pretrain", "finetune", "evaluate", "publish"] = presentation("publish")
    """The last stage of a whole run. A corpus without labels ends with pretrain, or is fine-tuned on continue_text,
    which needs none."""

    @model_validator(mode="before")
    @classmethod
    def _captions_have_the_length_of_the_context(cls, body: Any) -> Any:
        """Who names no length of an answer has captions of the length that pretraining cuts them to."""
        match body:
            case {"pretrain": {"model": {"context_tokens": int(room)}}, "finetune": {"task": str(task), **named}}:
                collides = LEAST_ANSWER_TOKENS <= room < USUAL_ANSWER_TOKENS and is_about_captions(task)
                if collides and "answer_tokens" not in named:
                    return {**body, "finetune": {**body["finetune"], "answer_tokens": room}}
        return body

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        problems = list(misfits(self._choice()))
        context = self.pretrain.model.context_tokens
        fragment, answer = self.finetune.fragment_tokens, self.finetune.answer_tokens
        if is_text := reads_text(self.ingest.source.kind_of_items):
            if fragment > context:
                problems.append(f"finetune.fragment_tokens={fragment} must not exceed model.context_tokens={context}")
            if (size := self.evaluate.sample_tokens) >= context:
                problems.append(f"evaluate.sample_tokens={size} must be less than model.context_tokens={context}")
            if self.ingest.shard_tokens < context:
                problems.append(f"ingest.shard_tokens={self.ingest.shard_tokens} must hold one context of {context}")
        room = room_for_answer(self.finetune.task, context, fragment)
        if room is not None and answer > room and (is_text or is_about_captions(self.finetune.task)):
            problems.append(f"finetune.answer_tokens={answer} must not exceed {room}, what the context leaves it")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _choice(self) -> Choice:
        source, special, of = self.ingest.source, self.ingest.tokenizer.special, self.ingest
        model, masking = self.pretrain.model, self.pretrain.masking
        spans = Spans.of(model.context_tokens, masking.of_text, masking.span_tokens)
        return Choice(
            source=source.kind_of_items,
            caption_field=source.caption_field,
            family=model.family,
            objective=self.pretrain.objective,
            task=None if self.last in ("ingest", "pretrain") else self.finetune.task,
            patch=model.patch,
            special=frozenset(name for name in ("mask", "start", "sentinels") if getattr(special, name)),
            sizes={
                "image": (of.image.size_pixels, of.image.size_pixels),
                "audio": (of.audio.mel_bins, of.audio.frames),
                "series": (1, of.series.window),
            },
            augmented=self.pretrain.augment.changes or self.finetune.augment.changes,
            position=model.trunk.position,
            context_tokens=model.context_tokens,
            sentinels=special.sentinels,
            spans=spans if self.pretrain.objective == "span_corruption" else None,
            hidden_fraction=masking.of_patches,
            experts=model.trunk.experts,
            second_experts=None if model.second_trunk is None else model.second_trunk.experts,
            class_names=len(self.evaluate.class_names) or None if self.last in ("evaluate", "publish") else None,
        )
