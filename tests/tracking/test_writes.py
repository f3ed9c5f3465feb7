"""Every family that writes is written with by the same options, whole and as a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from foundation_core.errors import ConfigError
from foundation_core.specs.writing import WritingSpec
from foundation_core.tracking.served import ServedModel
from foundation_core.tracking.writes import PARAMS
from tests.support.served import CONTEXT, picture, served

MAKES = {
    "decoder": ("decoder", None),
    "prefix": ("prefix", None),
    "mixture": ("mixture", None),
    "encoder-decoder": ("encoder_decoder", None),
    "captioner": ("captioner", None),
    "continues": ("decoder", "continue_text"),
    "completes": ("prefix", "complete_function"),
    "docstrings": ("encoder_decoder", "docstring_of_function"),
    "captions": ("captioner", "caption_of_sample"),
}
TEXTS = ["def name_3(value):", "return", "x + 1\n"]


@pytest.fixture(scope="module", params=MAKES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    kind, task = MAKES[request.param]
    made = served(tmp_path_factory.mktemp("model"), kind, task)
    made.abilities = {name: each for name, each in made.abilities.items() if task is None or name == "write"}
    return made


def items(model: ServedModel) -> list[Any]:
    return [picture(level) for level in (1, 5, 9)] if model.inputs == ["image"] else TEXTS


def texts(model: ServedModel, **params: Any) -> list[str]:
    writer = model.writer()
    return [row[writer.column] for row in model.answer(items(model), {"max_tokens": 12, "task": writer.name, **params})]


def test_every_option_is_heard(model: ServedModel):
    hot = {"temperature": 2.0, "top_k": 300, "seed": 1}
    drawn = texts(model, **hot)
    assert texts(model, **hot) == drawn
    for other in ({"top_k": 1}, {"top_p": 0.01}, {"min_p": 1.0}, {"temperature": 0.0}, {"seed": 2}, {"max_tokens": 5},
                  {"repetition_penalty": 50.0}):  # fmt: skip
        assert texts(model, **{**hot, **other}) != drawn, other
    assert texts(model, beams=1, temperature=0.0) == texts(model, temperature=0.0)
    letter = next(letter for letter in drawn[0][1:] if letter.isascii())
    for cut, whole in zip(texts(model, **hot, stop=[letter]), drawn, strict=True):
        assert cut == (whole[: whole.index(letter) + 1] if letter in whole else whole)


def test_a_stream_is_the_answer(model: ServedModel):
    for params in ({"temperature": 2.0, "top_k": 300}, {"beams": 3}, {"temperature": 0.0}):
        found = ["", "", ""]
        for pieces in model.stream(items(model), {"max_tokens": 12, **params, "task": model.writer().name}):
            found = [text + (piece or "") for text, piece in zip(found, pieces, strict=True)]
        assert found == texts(model, **params)


def test_a_text_does_not_depend_on_what_is_written_beside_it(model: ServedModel):
    for params in ({"temperature": 0.0}, {"beams": 3}):
        writer = model.writer()
        asked = {"max_tokens": 12, "task": writer.name, **params}
        alone = [model.answer([item], asked)[0][writer.column] for item in items(model)]
        assert alone == texts(model, **params)


def test_what_does_not_go_together_is_refused(model: ServedModel):
    with pytest.raises(ConfigError, match="beams=2"):
        texts(model, beams=2, temperature=0.5)
    with pytest.raises(ConfigError, match="min_p=2"):
        texts(model, min_p=2.0)


def test_more_tokens_than_the_context_holds_end_there(model: ServedModel):
    assert texts(model, max_tokens=10_000, temperature=0.0) == texts(model, max_tokens=CONTEXT - 1, temperature=0.0)


def test_answers_are_written_by_the_beams_of_the_fine_tuning_unless_somebody_says_otherwise(tmp_path: Path):
    (tmp_path / "one").mkdir()
    (tmp_path / "four").mkdir()
    one, four = (served(tmp_path / name, "encoder_decoder", "docstring_of_function", beams)
                 for name, beams in (("one", 1), ("four", 4)))  # fmt: skip
    assert texts(one) == texts(one, temperature=0.0)
    assert texts(four) == texts(one, beams=4) != texts(one)
    assert texts(four, temperature=0.0) == texts(one)
    facts = four.task_model.facts  # type: ignore[union-attr]
    task: Any = four.task_model.task  # type: ignore[union-attr]
    scored = task.written(four.task_model.model, task.questions(TEXTS, facts), facts)  # type: ignore[union-attr]
    assert scored == [row["answer"] for row in four.answer(TEXTS, {"task": "write"})]


def test_a_model_that_writes_nothing_says_what_it_can(tmp_path: Path):
    model = served(tmp_path, "decoder")
    with pytest.raises(ConfigError, match="no texts by the task 'score'"):
        model.writer("score")
    model.abilities = {"embed": model.abilities["embed"]}
    with pytest.raises(ConfigError, match="writes no texts; it can embed"):
        model.writer()


def test_mlflow_is_told_of_every_option_and_passes_on_what_is_said_and_no_more(tmp_path: Path):
    from mlflow.models.utils import _enforce_params_schema
    from mlflow.types import ParamSchema

    from foundation_core.tracking.package import params_schema

    assert set(PARAMS) == {"task", "max_tokens", *WritingSpec.model_fields}
    schema = ParamSchema.from_json(params_schema().to_json())  # as it stands in the file MLmodel
    model = served(tmp_path, "decoder")
    for said in ({}, {"beams": 3}, {"temperature": 0.3, "stop": ["a", "b"], "top_p": 0.5}, {"repetition_penalty": 2}):
        passed = _enforce_params_schema(dict(said), schema)
        assert set(passed) == set(PARAMS)
        assert model.writer().how(passed) == model.writer().how(said)
    for name, field in WritingSpec.model_fields.items():
        assert PARAMS[name].several == bool(get_args(field.annotation))
