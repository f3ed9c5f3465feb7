"""How a model writes texts: one spec for recipes, the command line and registered models.

Each of them takes its options from the fields of `WritingSpec`, so that an option that joins here joins everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from foundation_core.errors import ConfigError
from foundation_core.specs.base import Spec

DRAWN_FROM = ("top_k", "top_p", "min_p")
"""Fields that say which tokens are drawn from: of no use where none is drawn."""


class WritingSpec(Spec):
    """Which token comes next, and what ends a text."""

    temperature: float = Field(0.8, ge=0, allow_inf_nan=False)
    """0 takes the most probable token; larger values take more risk."""
    top_k: int = Field(40, ge=1)
    """Tokens that sampling chooses from."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Of these, the fewest most probable ones that together have this share; 1 keeps all."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Of these, the ones at least so probable as this share of the most probable one; 0 keeps all."""
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Makes tokens that a text holds already less probable; 1 does nothing, 1.2 is much."""
    stop: tuple[str, ...] = ()
    """Texts, each of which ends what is written, and is the last of it."""
    beams: int = Field(1, ge=1)
    """Candidates that are kept side by side, to find the most probable text as a whole; 1: no such search. With more,
    nothing is drawn: the temperature is 0."""
    seed: int = 0
    """Another one gives other texts, where tokens are drawn."""

    @model_validator(mode="before")
    @classmethod
    def _beams_are_cold(cls, body: Any) -> Any:
        if isinstance(body, Mapping) and body.get("beams", 1) != 1 and "temperature" not in body:
            return {**body, "temperature": 0.0}
        return body

    @model_validator(mode="after")
    def _options_go_together(self) -> Self:
        if not all(self.stop):
            raise ValueError("stop holds an empty text, which every text holds")
        idle = {name: WritingSpec.model_fields[name].default for name in (*DRAWN_FROM, "repetition_penalty")}
        wrong = [name for name, value in {**idle, "temperature": 0}.items() if getattr(self, name) != value]
        if self.beams > 1 and wrong:
            said = ", ".join(f"{name}={getattr(self, name)}" for name in wrong)
            raise ValueError(
                f"beams={self.beams} looks for the most probable text, and {said} would have it draw another one:"
                " allowed beside beams are temperature=0, stop and seed"
            )
        return self


WRITTEN_AS_USUAL = WritingSpec()


def writing(said: Mapping[str, Any], usual: WritingSpec = WRITTEN_AS_USUAL) -> WritingSpec:
    """How texts are written where somebody says some of it, and the rest is as usual.

    Who asks for beams asks for nothing to be drawn, and the other way round: what is usual gives way to what is said.

    Args:
        said: fields of `WritingSpec`; others are left out, and None is not said.

    Raises:
        ConfigError: a value that is not allowed, or two that do not go together.
    """
    said = {name: value for name, value in said.items() if name in WritingSpec.model_fields and value is not None}
    rest = usual.model_dump()
    if said.get("beams", 1) != 1:
        rest = {name: rest[name] for name in ("stop", "seed")}
    elif said.keys() & {"temperature", "repetition_penalty", *DRAWN_FROM}:
        rest["beams"] = 1
        if usual.temperature == 0 and said.keys() & {*DRAWN_FROM}:
            rest["temperature"] = WRITTEN_AS_USUAL.temperature
    try:
        return WritingSpec.model_validate({**rest, **said})
    except ValidationError as error:
        problems = "; ".join(_problem(problem) for problem in error.errors())
        raise ConfigError(f"texts cannot be written so: {problems}", fix="take a value that is allowed") from error


def _problem(found: Any) -> str:
    message = found["msg"].removeprefix("Value error, ")
    return message if found["type"] == "value_error" else f"{found['loc'][0]}={found['input']!r}: {message}"
