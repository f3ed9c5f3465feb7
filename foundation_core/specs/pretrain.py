"""Self-supervised training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from foundation_core.specs.augment import AugmentSpec
from foundation_core.specs.base import Spec, placement
from foundation_core.specs.checkpoints import CheckpointSpec
from foundation_core.specs.loading import MixtureSpec, Packing, ShardStoreSpec
from foundation_core.specs.masking import MaskingSpec
from foundation_core.specs.model import ModelSpec
from foundation_core.specs.optimizer import OptimizerSpec
from foundation_core.specs.recovery import RecoverySpec
from foundation_core.specs.watch import WatchSpec
from foundation_core.specs.workers import least_is_not_above_most, range_of_workers


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
