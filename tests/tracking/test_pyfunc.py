"""What a packaged model answers, by the meaning of each task."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from foundation_core.adapt.fragments import PackageOfFragment
from foundation_core.adapt.tasks import Facts
from foundation_core.adapt.transfer import Pretrained, task_model
from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import ShardDataset, ShardWriter
from foundation_core.data.tokens.byte_level import END_ID, token_bytes, train_tokenizer
from foundation_core.data.units.work import TOKENS
from foundation_core.errors import ConfigError
from foundation_core.evaluate.likelihood import score_rows
from foundation_core.files import write_json
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.language import NextToken
from foundation_core.shape import SampleShape
from foundation_core.specs import FinetuneSpec, ModelSpec, TrunkSpec
from foundation_core.tracking.served import ServedModel, TaskModel
from foundation_core.weights import save_weights

VOCABULARY, CONTEXT, FRAGMENT = 300, 16, 8
SHAPE = SampleShape(vocabulary=VOCABULARY)
SPEC = ModelSpec(trunk=TrunkSpec(width=32, depth=2, heads=2), context_tokens=CONTEXT)
TEXT = "def answer(value):\n    return [value + 1 for value in range(42)]\n" * 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """A model with random weights, and a classifier."""
    folder = tmp_path_factory.mktemp("trunk")
    digest = save_weights(folder / "weights.safetensors", initialize(build(SPEC, SHAPE), 0).state_dict())
    write_json(
        folder / "model.json",
        {"version": 2, "model": SPEC.model_dump(mode="json"), "shape": SHAPE.to_json()},
    )
    source = [f"def name_{number}(value): return value + {number}\n" for number in range(100)]
    tokenizer = train_tokenizer([*source, TEXT], VOCABULARY)
    facts = Facts(FinetuneSpec(fragment_tokens=FRAGMENT), ["a", "b", "c"], tokenizer)
    fitted = TaskModel(PackageOfFragment(), task_model(SPEC, SHAPE, 3, "mean", seed=1).eval(), facts)
    return ServedModel(Pretrained.find(folder, digest), tokenizer, task_model=fitted)


def test_a_text_has_the_score_that_its_document_has_in_the_evaluation(model: ServedModel, tmp_path: Path) -> None:
    tokens = [*model.tokenizer.encode(TEXT).ids, END_ID]
    assert len(tokens) > 3 * CONTEXT
    with ShardWriter(tmp_path, TOKENS, source={}, shard_size=10**6) as shards:
        shards.write(pa.table({"document": ["one"], "group": [""], "tokens": [tokens]}, schema=TOKENS))
    windows = Windows(ShardDataset(tmp_path), CONTEXT)
    expected = score_rows(model.model, NextToken(), windows, torch.arange(len(windows)), token_bytes(model.tokenizer))
    (answer,) = model.answer([TEXT], {"task": "score"})
    assert answer["bits_per_byte"] == pytest.approx(expected.bits_per_byte, rel=1e-6)
    assert answer["tokens"] == len(tokens)


def test_line_ends_and_accents_are_normalised_as_at_ingest(model: ServedModel) -> None:
    plain, other = "café = 1\nx = 2\n", "cafe\u0301 = 1\r\nx = 2\r\n"
    first, second = model.answer([plain, other], {"task": "score"})
    assert first == second


def test_a_row_does_not_depend_on_the_others(model: ServedModel) -> None:
    texts = ["import os\n", TEXT, "x"]
    for task in model.tasks:
        params = {"task": task, "max_tokens": 4, "temperature": 0.0}
        assert model.answer(texts, params) == [model.answer([text], params)[0] for text in texts]


def test_the_same_seed_gives_the_same_completion_and_another_seed_another(model: ServedModel) -> None:
    first, same, other = (model.answer(["def "], {"seed": seed, "max_tokens": 12}) for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_more_tokens_than_the_context_holds_end_there(model: ServedModel) -> None:
    longest = model.answer(["x"], {"max_tokens": CONTEXT - 1})
    assert model.answer(["x"], {"max_tokens": 10_000}) == longest
    assert model.answer(["x"], {"max_tokens": CONTEXT - 2}) != longest


def test_a_class_is_the_mean_over_whole_fragments(model: ServedModel) -> None:
    assert model.task_model is not None
    ids = model.tokenizer.encode(TEXT).ids
    whole = torch.tensor(ids[: len(ids) // FRAGMENT * FRAGMENT]).view(-1, FRAGMENT)
    with torch.no_grad():
        expected = model.task_model.model(whole).softmax(-1).mean(0)
    (answer,) = model.answer([TEXT], {"task": "classify"})
    assert answer["label"] == model.task_model.facts.classes[int(expected.argmax())]
    assert answer["probability"] == pytest.approx(expected.max().item(), rel=1e-5)


def test_an_empty_text_is_answered_too(model: ServedModel) -> None:
    for task in model.tasks:
        assert len(model.answer([""], {"task": task, "max_tokens": 3})) == 1


def test_a_task_that_the_model_has_not_is_refused(model: ServedModel) -> None:
    with pytest.raises(ConfigError, match="no task 'paint'"):
        model.answer(["x"], {"task": "paint"})


def test_what_can_be_asked_is_what_the_parts_can_do(model: ServedModel) -> None:
    assert model.tasks == ["generate", "score", "classify", "embed"]
    assert model.inputs == ["text"]
    (answer,) = model.answer([TEXT], {"task": "embed"})
    assert len(answer["embedding"]) == SPEC.trunk.width
