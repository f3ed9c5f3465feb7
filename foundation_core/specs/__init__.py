"""Every Spec: one definition that serves Python, the YAML recipe, dotted overrides on the command line and a form.

A file for each stage, and one for each part that stages share; what they all are stands in base.py. Nothing here
imports torch: a command line or a form loads in a blink.
"""

from __future__ import annotations

from foundation_core.specs.augment import AugmentSpec
from foundation_core.specs.base import Role, Spec, described_leaves, leaves, placement, presentation
from foundation_core.specs.checkpoints import CheckpointSpec
from foundation_core.specs.decontamination import DecontaminationSpec, EvaluationSetSpec
from foundation_core.specs.evaluate import EvaluateSpec
from foundation_core.specs.finetune import FinetuneSpec
from foundation_core.specs.ingest import (
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
from foundation_core.specs.loading import MixedGroupSpec, MixtureSpec, ShardStoreSpec, WeightChangeSpec
from foundation_core.specs.masking import MaskingSpec
from foundation_core.specs.model import ModelSpec, RunsSpec, TrunkSpec
from foundation_core.specs.optimizer import MuonSpec, OptimizerSpec, TuningOptimizerSpec
from foundation_core.specs.pipeline import PipelineSpec
from foundation_core.specs.pretrain import PretrainSpec
from foundation_core.specs.publish import PublishSpec
from foundation_core.specs.quality import (
    FilterSpec,
    FuzzyDedupSpec,
    GopherSpec,
    ParagraphDedupSpec,
    QualitySpec,
    RepetitionSpec,
)
from foundation_core.specs.recovery import RecoverySpec
from foundation_core.specs.watch import WatchSpec
from foundation_core.specs.writing import WritingSpec

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
