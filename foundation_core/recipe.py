"""A recipe: a PipelineSpec in YAML, with dotted overrides. Every problem is collected and named with its line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from foundation_core.errors import ConfigError
from foundation_core.specs import PipelineSpec

Overrides = Sequence[tuple[str, str]]
"""Dotted field and value, as written on the command line."""


def load_recipe(path: Path, overrides: Overrides = ()) -> PipelineSpec:
    """The pipeline that a YAML file describes, with overrides applied.

    Raises:
        ConfigError: the file is not there, is not YAML, or has problems; all of them are in the message.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        body = yaml.safe_load(text) or {}
        lines = _lines(yaml.compose(text))
    except OSError as error:
        raise ConfigError(f"recipe {path} cannot be read: {error.strerror}", fix="name a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} is not YAML: {error}", fix="correct the file") from error
    if not isinstance(body, dict):
        raise ConfigError(f"recipe {path} holds a {type(body).__name__}", allowed="a mapping of stages to settings")
    origin: dict[tuple[str, ...], str] = {place: f"{path}:{line}" for place, line in lines.items()}
    for name, value in overrides:
        place = tuple(name.split("."))
        _set(body, place, _meant(value), name)
        origin[place] = f"--{name}"
    return parse_recipe(body, origin)


def with_field(recipe: PipelineSpec, name: str, value: str) -> PipelineSpec:
    """The same pipeline with one field set, by its dotted name, to a value as written on the command line.

    Raises:
        ConfigError: there is no such field, or it cannot have that value.
    """
    body, place = recipe.model_dump(), tuple(name.split("."))
    _set(body, place, _meant(value), name)
    origin = {place[:end]: f"--{name} {value}" for end in range(1, len(place) + 1)}
    return parse_recipe(body, origin)  # a rule between fields is broken at the section above them


def parse_overrides(rest: Sequence[str]) -> list[tuple[str, str]]:
    """`--a.b 1` and `--a.b=1` as (a.b, 1).

    Raises:
        ConfigError: a word is neither.
    """
    found, words = [], list(rest)
    while words:
        name, equals, value = words.pop(0).partition("=")
        if not name.startswith("--") or (not equals and not words):
            raise ConfigError(f"{name!r} is not understood", allowed="--dotted.field value")
        found.append((name[2:], value if equals else words.pop(0)))
    return found


def parse_recipe(body: Mapping[str, Any], origin: Mapping[tuple[str, ...], str] | None = None) -> PipelineSpec:
    """The pipeline that a mapping describes.

    Args:
        origin: where each dotted place was written, for the message.
    """
    try:
        return PipelineSpec.model_validate(body)
    except ValidationError as error:
        found = {(problem["loc"], problem["type"]): problem for problem in [*error.errors(), *_hidden(body)]}
        problems = [_problem(each, origin or {}) for each in found.values()]
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError(
            f"the recipe has {count}:\n" + "\n".join(f"    {problem}" for problem in problems),
            fix="correct each; `foundation fields` lists every field with its meaning and bounds",
        ) from error


def _meant(value: str) -> Any:
    """A value of the command line as YAML has it."""
    import yaml

    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:  # such as **/*.txt: a text without quotes
        return value


def _hidden(body: Mapping[str, Any]) -> list[Any]:
    """Problems that an unknown field hides: the rules between the fields of a section are not asked beside one."""
    try:
        PipelineSpec.model_validate(body, extra="ignore")
    except ValidationError as error:
        return list(error.errors())
    return []


def _problem(found: Any, origin: Mapping[tuple[str, ...], str]) -> str:
    place = tuple(str(part) for part in found["loc"])
    where = next((origin[place[:end]] for end in range(len(place), 0, -1) if place[:end] in origin), "")
    message = found["msg"].removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        message = f"unknown field; allowed: {', '.join(_fields(place[:-1]))}"
    elif found["type"] != "value_error":
        message += f", found {found['input']!r}"
    dotted = ".".join(place)
    return f"{where}: {dotted}: {message}" if dotted else message


def _fields(place: Sequence[str]) -> list[str]:
    """The fields of the spec at a place."""
    spec: Any = PipelineSpec
    for name in place:
        if hasattr(spec, "model_fields") and name in spec.model_fields:
            spec = spec.model_fields[name].annotation
            spec = next((a for a in getattr(spec, "__args__", ()) if hasattr(a, "model_fields")), spec)
    return list(getattr(spec, "model_fields", {}))


def _set(body: dict[str, Any], place: tuple[str, ...], value: Any, name: str) -> None:
    for part in place[:-1]:
        if body.get(part) is None:  # also a section that the file names and leaves empty
            body[part] = {}
        body = body[part]
        if not isinstance(body, dict):
            raise ConfigError(f"--{name} reaches into {part!r}, which is a single value", fix="correct the dotted name")
    body[place[-1]] = value


def _lines(node: Any, place: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """The line of every key of a YAML document, by its place."""
    found: dict[tuple[str, ...], int] = {}
    if node is None or isinstance(node.value, str):
        return found
    for number, child in enumerate(node.value):
        key, value = child if isinstance(child, tuple) else (None, child)
        inner = (*place, key.value if key is not None else str(number))
        found[inner] = (key or value).start_mark.line + 1
        found |= _lines(value, inner)
    return found
