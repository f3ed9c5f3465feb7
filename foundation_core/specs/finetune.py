"""Transfer learning."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from foundation_core.specs.augment import AugmentSpec
from foundation_core.specs.base import Spec, placement
from foundation_core.specs.optimizer import TuningOptimizerSpec

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
