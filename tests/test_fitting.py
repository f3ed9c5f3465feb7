"""What cannot go together is refused when the recipe is read, with the reason; what is not known is not judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foundation_core import plugins
from foundation_core.errors import ConfigError
from foundation_core.fitting import FAMILIES, NEED_CAPTIONS, SOURCES, TASKS
from foundation_core.recipe import load_recipe, parse_recipe
from foundation_core.specs import SourceSpec

SPECIAL = {"mask": True, "start": True, "sentinels": 8}
MAE = {"model": {"family": "masked_autoencoder"}, "objective": "masked_patches"}
DIGITS = {"source": {"kind": "digits"}}
RELATIVE = {"model": {"trunk": {"position": "relative"}}}
SPANS = {"model": {"family": "encoder_decoder"}, "objective": "span_corruption"}
SENTINELS = {"ingest": {"tokenizer": {"special": SPECIAL}}, "last": "pretrain"}
CLASSES = {"task": "class_of_sample"}
BALANCED = "balanced_next_token"
LIGHT = {"width": 64}
DESCRIBED = {"source": {"kind": "digits_with_captions"}, "tokenizer": {"special": SPECIAL}}
SERIES = {"source": {"kind": "series_table"}, "series": {"window": 64}}
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def text_model(family: str, objective: str, **model: Any) -> dict[str, Any]:
    """A recipe up to its pretraining on text."""
    return {**SENTINELS, "pretrain": {"model": {"family": family, **model}, "objective": objective}}


def experts(number: int) -> dict[str, Any]:
    """A trunk that has so many."""
    return {"trunk": {"experts": number}}


def masked(fraction: float | None = None, patch: tuple[int, int] = (2, 2), **model: Any) -> dict[str, Any]:
    """A recipe on images of 8 x 8."""
    autoencoder = {"model": {"family": "masked_autoencoder", "patch": patch, **model}, "objective": "masked_patches"}
    pretrain = {**autoencoder, "masking": {"fraction": fraction}}
    return {"ingest": {**DIGITS, "image": {"size_pixels": 8}}, "pretrain": pretrain, "finetune": CLASSES}


def next_values(ingest: dict[str, Any], patch: tuple[int, int], objective: str = "masked_patches") -> dict[str, Any]:
    """A recipe that goes on with a sample."""
    pretrain = {"model": {"family": "masked_autoencoder", "patch": patch}, "objective": objective}
    return {"ingest": ingest, "pretrain": pretrain, "finetune": {"task": "next_values"}}


def named(*names: str, last: str = "publish") -> dict[str, Any]:
    """A recipe whose evaluation names the classes of digits."""
    pretrain = {"model": {"family": "dual_encoder"}, "objective": "contrastive"}
    evaluate = {"templates": ["a {}"], "class_names": names}
    return {"ingest": DESCRIBED, "pretrain": pretrain, "finetune": CLASSES, "evaluate": evaluate, "last": last}


def captioned(context_tokens: int, task: str = "caption_naming_class", **finetune: Any) -> dict[str, Any]:
    """A recipe that captions images."""
    pretrain = {"model": {"family": "captioner", "context_tokens": context_tokens}, "objective": "captioning"}
    return {"ingest": DESCRIBED, "pretrain": pretrain, "finetune": {"task": task, **finetune}}


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


@pytest.mark.parametrize(
    ("body", "reason", "neighbour"),
    [
        (
            masked(patch=(8, 8)),
            "a sample is one patch; lower pretrain.model.patch", masked(patch=(8, 4)),
        ),
        (
            masked(0.02),
            "pretrain.masking.fraction=0.02 hides none of the 16 patches of a sample; raise it to 0.063 or more",
            masked(0.063),
        ),
        (
            next_values(SERIES, (1, 64), "theirs"),
            "next_values draws the last patch .* pretrain.model.patch=1 x 64 takes the whole sample of 1 x 64",
            next_values(SERIES, (1, 32), "theirs"),
        ),
        (
            next_values(DIGITS, (2, 2)),
            "next_values is about series, and the source digits holds images; try class_of_sample\n",
            next_values(SERIES, (1, 2)),
        ),
        (
            next_values({"source": {"kind": "audio_folder"}}, (2, 2)),
            "next_values is about series, and the source audio_folder holds recordings; try class_of_sample",
            next_values({"source": {"kind": "wave_folder"}}, (1, 2)),
        ),
        (
            text_model("mixture", BALANCED),
            "pretrain.model.trunk.experts=0, and the family mixture", text_model("mixture", BALANCED, **experts(4)),
        ),
        *(
            (
                text_model(family, objective, **parts, second_trunk=LIGHT),
                f"pretrain.model.second_trunk is set, and the family {family} has one trunk; remove it",
                text_model(family, objective, **parts),
            )
            for family, objective, parts in (
                ("decoder", "next_token", {}), ("encoder", "masked_token", {}), ("mixture", BALANCED, experts(4)),
            )
        ),
        (
            text_model("encoder", "masked_token", **experts(4)),
            "pretrain.model.trunk.experts=4: no objective of the family encoder has its routers use .*: mixture",
            text_model("encoder", "masked_token", **experts(0)),
        ),
        (
            masked(second_trunk={"experts": 3}),
            "pretrain.model.second_trunk.experts=3: no objective of the family masked_autoencoder",
            masked(second_trunk=LIGHT),
        ),
        (
            text_model("decoder", BALANCED, **experts(4)),
            "asks what the family decoder cannot answer: it balances the experts that the family mixture has",
            text_model("mixture", BALANCED, **experts(4)),
        ),
        *(
            (
                text_model("mixture", objective, **experts(4)),
                f"objective={objective} leaves the routers of the family mixture unbalanced.* allowed: {BALANCED}",
                text_model("decoder", objective),
            )
            for objective in ("next_token", "prefix")
        ),
        (
            named(*NUMBERS[:9]),
            "evaluate.class_names has 9 names, and the source digits_with_captions has 10 groups", named(*NUMBERS),
        ),
        (
            captioned(24, answer_tokens=25),
            "finetune.answer_tokens=25 must not exceed 24", captioned(24, answer_tokens=24),
        ),
        (
            captioned(24, "caption_of_sample", answer_tokens=48),
            "finetune.answer_tokens=48 must not exceed 24", captioned(48, "caption_of_sample", answer_tokens=48),
        ),
    ],
)  # fmt: skip
def test_what_would_fail_behind_earlier_stages_is_refused_and_its_neighbour_is_not(
    body: dict[str, Any], reason: str, neighbour: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_recipe(body)
    parse_recipe(neighbour)


def test_captions_of_no_named_length_have_that_of_the_context() -> None:
    """Pretraining cuts them to it. Whoever names no length is not asked to."""
    for task in ("caption_of_sample", "caption_naming_class"):
        assert parse_recipe(captioned(24, task)).finetune.answer_tokens == 24
    assert parse_recipe(captioned(24, answer_tokens=20)).finetune.answer_tokens == 20, "what is named stays"
    assert parse_recipe(captioned(256)).finetune.answer_tokens == 48
    text = {"pretrain": {"model": {"context_tokens": 100}}, "finetune": {"task": "continue_text"}}
    with pytest.raises(ConfigError, match="answer_tokens=48 must not exceed 36"):  # half an answer is another question
        parse_recipe(text)


def test_names_of_classes_are_not_counted_where_nobody_asks_for_them() -> None:
    parse_recipe(named("a", "b", last="finetune"))
    of_a_table = {"source": {"kind": "image_table", "caption_field": "says"}, "tokenizer": {"special": SPECIAL}}
    parse_recipe({**named("a", "b"), "ingest": of_a_table})


def test_the_groups_that_the_table_knows_are_those_of_the_source() -> None:
    found = {name: source.groups for name, source in SOURCES.items() if source.groups is not None}
    assert found
    for name, groups in found.items():
        files = plugins.find("sources", name)(SourceSpec(kind=name)).files()
        assert len({file.group for file in files}) == groups


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
