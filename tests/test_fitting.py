"""What cannot go together is refused when the recipe is read, with the reason; what is not known is not judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foundation_core import plugins
from foundation_core.errors import ConfigError
from foundation_core.fitting import FAMILIES, NEED_CAPTIONS, SOURCES, TASKS
from foundation_core.recipe import load_recipe, parse_recipe

SPECIAL = {"mask": True, "start": True, "sentinels": 8}
MAE = {"model": {"family": "masked_autoencoder"}, "objective": "masked_patches"}
DIGITS = {"source": {"kind": "digits"}}
RELATIVE = {"model": {"trunk": {"position": "relative"}}}
SPANS = {"model": {"family": "encoder_decoder"}, "objective": "span_corruption"}
SENTINELS = {"ingest": {"tokenizer": {"special": SPECIAL}}, "last": "pretrain"}
CLASSES = {"task": "class_of_sample"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"pretrain": {"objective": "masked_token"}, "ingest": {"tokenizer": {"special": SPECIAL}}}, "only backwards"),
        ({"pretrain": {"model": {"family": "encoder"}}}, "has seen the answer"),
        ({"pretrain": {"model": {"family": "encoder"}, "objective": "masked_token"}}, "a tokenizer with mask"),
        ({"ingest": DIGITS, "pretrain": MAE}, "package_of_fragment is about text, and the source digits holds values"),
        ({"finetune": CLASSES}, "class_of_sample is about values, and the source python_stdlib holds text"),
        ({"pretrain": {"augment": {"scale": 0.1}}}, "augment changes values, and the source python_stdlib holds"),
        ({"ingest": DIGITS, "finetune": CLASSES}, "the family decoder reads text"),
        (
            {"ingest": {**DIGITS, "image": {"size_pixels": 9}}, "pretrain": MAE, "finetune": CLASSES},
            "patch=2 x 2 does not divide the samples of 9 x 9",
        ),
        (
            {
                "ingest": DIGITS, "finetune": CLASSES,
                "pretrain": {"model": {"family": "dual_encoder"}, "objective": "contrastive"},
            },
            "contrastive needs captions, and the source digits has none",
        ),
        ({"finetune": {"task": "docstring_of_function"}}, "the decoder of encoder_decoder, and the family is decoder"),
        ({"ingest": DIGITS, "pretrain": MAE, "finetune": {"task": "caption_of_sample"}}, "needs captions"),
        ({"pretrain": {"objective": "prefix", **RELATIVE}}, "prefix: a prefix is read both ways, and trunk.position"),
        ({"pretrain": RELATIVE, "finetune": {"task": "complete_function"}}, "complete_function: a prefix is read both"),
        (
            {"pretrain": {**SPANS, "model": {"family": "encoder_decoder", "context_tokens": 1024}}, **SENTINELS},
            "cuts 51 spans out of a row of 1024 tokens, and the tokenizer has 8 sentinels",
        ),
        (
            {"pretrain": {**SPANS, "masking": {"fraction": 0.97, "span_tokens": 31}}, **SENTINELS},
            "asks for up to 257 tokens of a document that fills a row of 256: 248 that are cut out, 8 sentinels",
        ),
    ],
)  # fmt: skip
def test_an_impossible_combination_is_refused_with_the_reason(body: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_recipe(body)


def test_every_misfit_is_told_at_once() -> None:
    body = {"ingest": {"source": {"kind": "series_table"}}, "finetune": {"task": "caption_of_sample"}}
    with pytest.raises(ConfigError) as caught:
        parse_recipe({**body, "pretrain": MAE})
    assert "does not divide the samples of 1 x 32" in str(caught.value)
    assert "needs captions" in str(caught.value)


def test_what_fits_is_read() -> None:
    parse_recipe({"ingest": DIGITS, "pretrain": MAE, "finetune": CLASSES})
    parse_recipe({"ingest": DIGITS, "pretrain": MAE, "last": "pretrain"})  # no task is asked
    parse_recipe({"pretrain": RELATIVE})  # what is read backwards alone has its numbers
    spans = {**SPANS, "masking": {"span_tokens": 5}}
    parse_recipe({"pretrain": spans, **SENTINELS})  # 256 tokens, 38 of them in 8 spans


def test_a_family_an_objective_a_source_or_a_task_of_another_package_is_not_judged() -> None:
    parse_recipe({"pretrain": {"model": {"family": "theirs"}, "objective": "their_objective"}})
    parse_recipe({"pretrain": {"objective": "their_objective"}})
    parse_recipe({"finetune": {"task": "theirs"}})
    parse_recipe({"ingest": {"source": {"kind": "theirs"}}, "pretrain": MAE, "finetune": CLASSES})


def test_a_task_on_values_does_not_read_the_length_of_a_fragment() -> None:
    short = {**MAE, "model": {"family": "masked_autoencoder", "context_tokens": 16}}
    parse_recipe({"ingest": DIGITS, "pretrain": short, "finetune": {**CLASSES, "fragment_tokens": 64}})
    with pytest.raises(ConfigError, match="fragment_tokens=64 must not exceed model"):
        parse_recipe({"pretrain": {"model": {"context_tokens": 16}}})


def test_an_answer_needs_room_in_the_context_where_it_stands_behind_what_was_asked() -> None:
    sizes = {"fragment_tokens": 80, "answer_tokens": 60}
    body = {"pretrain": {"model": {"context_tokens": 128}, "objective": "prefix"}}
    with pytest.raises(ConfigError, match="answer_tokens=60 must not exceed 48"):
        parse_recipe({**body, "finetune": {"task": "complete_function", **sizes}})
    parse_recipe({**body, "finetune": {"task": "package_of_fragment", **sizes}})


def test_the_tables_know_all_that_this_package_brings_and_nothing_else() -> None:
    objectives = {name for family in FAMILIES.values() for name in family.objectives}
    for group, known in (("families", set(FAMILIES)), ("objectives", objectives), ("tasks", set(TASKS)),
                         ("sources", {*SOURCES, "several"})):  # fmt: skip  # which are as their parts are
        assert set(plugins.names(group)) == known
    assert set(NEED_CAPTIONS) <= objectives | set(TASKS)


def test_what_tasks_say_of_themselves_is_what_the_table_says() -> None:
    for name, task in TASKS.items():
        assert plugins.find("tasks", name).reads == task.reads


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_is_read(path: Path) -> None:
    load_recipe(path)
