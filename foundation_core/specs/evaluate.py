"""Scores and samples."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from foundation_core.specs.base import placement
from foundation_core.specs.writing import WritingSpec


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
