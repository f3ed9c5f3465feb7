"""The specs of decontamination: texts of evaluation sets, and how much of them a document may hold."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from foundation_core.specs.base import Spec, placement


class EvaluationSetSpec(Spec):
    """Texts that a model will be examined with, and should not have been trained on."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    """Name by which cards and the rule `contamination_NAME` call it."""
    path: str = placement(...)
    """A table (CSV, JSONL, Parquet), a file of text, or a folder of them, each also packed; on this machine or in a
    store (s3://, gs://, hf://, https://). Its place is not part of the identity, its content is."""
    pattern: str = "**/*"
    """Which files of a folder are read; several with a | between them."""
    text_field: str | tuple[str, ...] = placement("text", min_length=1)
    """Column of a table that holds the texts; `data.q` leads into an object. Several, such as [question, answer]: each
    value is a text of its own. Their names are not part of the identity, their content is."""

    @property
    def text_fields(self) -> tuple[str, ...]:
        """The columns that hold texts."""
        return (self.text_field,) if isinstance(self.text_field, str) else self.text_field


class DecontaminationSpec(Spec):
    """Drops documents that hold what evaluation sets ask: runs of words, in small letters, without punctuation."""

    sets: tuple[EvaluationSetSpec, ...] = Field((), max_length=64)
    """Evaluation sets. Empty: nothing is looked for."""
    gram_words: int = Field(13, ge=2, le=1000)
    """Words of a run (n-gram). Source: Brown et al. 2020 (GPT-3), appendix C."""
    least_text_words: int = Field(8, ge=1)
    """Words that an evaluation text shorter than a run must have to be looked for as a whole. Shorter ones are counted
    and not looked for. Source: the smallest run of Brown et al. 2020, appendix C."""
    least_grams: int = Field(1, ge=1)
    """Different runs of a set that make a document a contaminated one. Source of one: Brown et al. 2020, appendix C,
    before they made an exception for long books."""
    least_set_fraction: float = Field(0.0, ge=0, le=1)
    """Share of the set's different runs that a contaminated document must have beside. 0: least_grams alone decides."""

    @model_validator(mode="after")
    def _names_each_set_once(self) -> Self:
        names = [one.name for one in self.sets]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"sets has two of the name {', '.join(twice)}")
        return self
