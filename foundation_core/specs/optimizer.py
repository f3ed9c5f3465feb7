"""The specs of learning: which optimizer moves the parameters, and how fast at which step."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from foundation_core.specs.base import Spec


class MuonSpec(Spec):
    """How muon moves the matrices of the blocks; of no use to other optimizers."""

    lr_factor: float = Field(1.0, gt=0)
    """Learning rate of the matrices, in multiples of lr. With 1 they move as far in a step as AdamW would move them."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Decay of the mean of the gradients."""
    iterations: int = Field(5, ge=1, le=20)
    """Newton-Schulz iterations that make a matrix's singular values alike."""


class OptimizerSpec(Spec):
    """An optimizer, and its learning rate at each step."""

    kind: Literal["adamw", "muon", "cpu_adam"] = "adamw"
    """adamw; muon, which moves the matrices of the blocks in all their directions alike and the rest by AdamW; or
    cpu_adam, DeepSpeed's AdamW in machine code for CPUs, which a C++ compiler makes on each machine."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    embedding_lr_factor: float = Field(1.0, gt=0)
    """Learning rate of embedding tables, in multiples of lr. A row learns only from the tokens that name it."""
    muon: MuonSpec = MuonSpec()
    """How muon moves matrices."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """After the warm-up: cosine falls all the way; wsd (warm-up, stable, decay) stays at the peak and falls at the
    end."""
    warmup_fraction: float = Field(0.05, ge=0, le=1)
    """Share of the steps with a rising learning rate."""
    decay_fraction: float = Field(0.2, ge=0, le=1)
    """Share of the steps with a falling one, at the end of wsd."""
    decay_shape: Literal["linear", "root"] = "linear"
    """How it falls at the end of wsd: by the same amount each step, or as 1 - sqrt(share of the fall that is done)."""
    final_lr_fraction: float = Field(0.1, ge=0, le=1)
    """Learning rate at the last step, as a share of the peak."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of AdamW's mean of the gradients."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """Decay of the mean of their squares."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled decay of the matrices; vectors are not decayed."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest global gradient norm; above it the gradient is scaled down."""

    @model_validator(mode="after")
    def _the_phases_fit(self) -> Self:
        if self.schedule == "wsd" and self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError(
                f"warmup_fraction={self.warmup_fraction} and decay_fraction={self.decay_fraction} must not exceed 1"
                " together: lower one of them"
            )
        return self


class TuningOptimizerSpec(OptimizerSpec):
    """The optimizer of a fine-tuning: few steps on rows with labels."""

    embedding_lr_factor: float = Field(10.0, gt=0)
    """Learning rate of embedding tables, in multiples of lr. A row learns only from the tokens that name it."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled decay of the matrices; vectors are not decayed."""
