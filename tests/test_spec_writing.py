"""Options of writing: what goes together, and how what is said meets what is usual."""

from __future__ import annotations

from typing import Any

import pytest

from foundation_core.errors import ConfigError
from foundation_core.specs import EvaluateSpec
from foundation_core.specs.writing import WritingSpec, writing

BEAMS, GREEDY = WritingSpec(beams=4), WritingSpec(temperature=0)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"beams": 4, "temperature": 0.8}, "temperature=0.8"),
        ({"beams": 2, "top_p": 0.5}, "top_p=0.5"),
        ({"beams": 2, "top_k": 5}, "top_k=5"),
        ({"beams": 2, "repetition_penalty": 1.1}, "repetition_penalty=1.1"),
        ({"beams": 0}, "beams=0"),
        ({"min_p": 1.5}, "min_p=1.5"),
        ({"top_p": 0}, "top_p=0"),
        ({"top_k": 0}, "top_k=0"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"repetition_penalty": 0}, "repetition_penalty=0"),
        ({"stop": ["x", ""]}, "empty text"),
    ],
)
def test_what_cannot_be_is_refused_by_name_whatever_is_usual(said: dict[str, Any], word: str):
    for usual in (WritingSpec(), GREEDY):
        with pytest.raises(ConfigError, match=word):
            writing(said, usual)


def test_what_is_not_said_is_as_usual():
    for usual in (WritingSpec(seed=3), BEAMS, GREEDY):
        assert writing({"temperature": None, "task": "write"}, usual) == usual
    assert writing({"stop": ["x"]}, BEAMS) == WritingSpec(beams=4, stop=("x",))


def test_what_is_said_takes_the_place_of_what_does_not_go_with_it():
    assert writing({"beams": 3}) == WritingSpec(temperature=0, beams=3)
    assert writing({"temperature": 0.5}, BEAMS) == WritingSpec(temperature=0.5)
    assert writing({"top_p": 0.9}, GREEDY) == WritingSpec(top_p=0.9)
    assert writing({"repetition_penalty": 1.2}, GREEDY) == WritingSpec(temperature=0, repetition_penalty=1.2)


def test_a_spec_survives_its_own_dump():
    for spec in (BEAMS, GREEDY, EvaluateSpec(beams=4), EvaluateSpec()):
        assert type(spec).model_validate(spec.model_dump(mode="json")) == spec
    assert EvaluateSpec().temperature == 0.8  # control: only beams are cold
