"""A whole recipe, and whether its stages fit together."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from foundation_core.fitting import Choice, Spans, is_about_captions, misfits, reads_text, room_for_answer
from foundation_core.specs.base import Spec, presentation
from foundation_core.specs.evaluate import EvaluateSpec
from foundation_core.specs.finetune import LEAST_ANSWER_TOKENS, USUAL_ANSWER_TOKENS, FinetuneSpec
from foundation_core.specs.ingest import IngestSpec
from foundation_core.specs.pretrain import PretrainSpec
from foundation_core.specs.publish import PublishSpec


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
