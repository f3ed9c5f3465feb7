"""What every Spec is: closed, frozen, documented by its attribute docstrings, each field with its role.

A field's role is *meaning* (it decides the result, so it is part of the identity), *placement* (where and how wide it
runs) or *presentation* (how it is named and shown).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["meaning", "placement", "presentation"]


def placement(default: Any, **limits: Any) -> Any:
    """A field that decides where or how wide a stage runs, never what comes out."""
    return Field(default, json_schema_extra={"role": "placement"}, **limits)


def presentation(default: Any, **limits: Any) -> Any:
    """A field that decides how a result is named or shown, never what comes out."""
    return Field(default, json_schema_extra={"role": "presentation"}, **limits)


class Spec(BaseModel):
    """Base of every spec: closed, frozen, documented by its own attribute docstrings."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for position, field in enumerate(cls.model_fields.values()):  # forms sort by `position`, else alphabetically
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            field.json_schema_extra = {**extra, "position": position}
        cls.model_rebuild(force=True)

    @classmethod
    def role(cls, field: str) -> Role:
        """What the field decides: the result, the place, or the looks."""
        extra = cls.model_fields[field].json_schema_extra
        return extra.get("role", "meaning") if isinstance(extra, dict) else "meaning"  # type: ignore[return-value]

    def meaning(self) -> dict[str, Any]:
        """The fields that decide the result, nested specs included: what the action key is made of."""
        return {name: _meaning(getattr(self, name)) for name in type(self).model_fields if self.role(name) == "meaning"}


def _meaning(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.meaning()
    if isinstance(value, (tuple, list)):
        return [_meaning(item) for item in value]
    if isinstance(value, dict):
        return {name: _meaning(item) for name, item in value.items()}
    return value


def leaves(spec: Spec, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf field as (dotted name, value), in the order of definition."""
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if isinstance(value, Spec):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def meaning_leaves(spec: Spec, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf field that decides the result as (dotted name, JSON value), in the order of definition."""
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if type(spec).role(name) != "meaning":
            continue
        if isinstance(value, Spec):
            yield from meaning_leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _meaning(value)


def described_leaves(spec: type[Spec], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every leaf field of a kind of spec as (dotted name, default, help text)."""
    for name, field in spec.model_fields.items():
        if isinstance(field.default, Spec):
            yield from described_leaves(type(field.default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.default, field.description or ""
