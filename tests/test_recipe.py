"""A recipe: what is in the file is what runs, and all that is wrong with it is said at once, with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundation_core.errors import ConfigError
from foundation_core.recipe import load_recipe, parse_recipe
from foundation_core.specs import PipelineSpec

REPOSITORY = Path(__file__).parent.parent

WRONG = """\
name: wrong
ingest:
  colour: red
  split: { seed: many }
pretrain:
  model:
    trunk: { width: 100, heads: 3, colour: red }
  steps: 0
finetune:
  lr: []
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_problem_of_a_recipe_is_in_one_message_with_its_line(tmp_path: Path) -> None:
    path = _write(tmp_path, WRONG)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[0] == "the recipe has 6 problems:"
    for line, field, word in [
        (3, "ingest.colour", "unknown field"),
        (4, "ingest.split.seed", "'many'"),
        (7, "pretrain.model.trunk", "heads must divide width: width=100, heads=3"),
        (7, "pretrain.model.trunk.colour", "unknown field"),
        (8, "pretrain.steps", "found 0"),
        (9, "finetune", "lr needs one or more"),  # a rule over several fields is told at its section
    ]:
        assert any(text.startswith(f"{path}:{line}: {field}: ") and word in text for text in lines), (field, lines)


def test_an_unknown_field_is_answered_with_the_fields_of_its_section(tmp_path: Path) -> None:
    path = _write(tmp_path, "ingest:\n  filters:\n    - { measure: characters, at_least: 1, most: 2 }\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml:3: ingest\.filters\.0\.most: .*measure, at_least, at_most"):
        load_recipe(path)


def test_a_problem_of_an_override_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--pretrain\.steps: pretrain\.steps: .*'soon'"):
        load_recipe(_write(tmp_path, ""), [("pretrain.steps", "soon")])


def test_an_override_wins_over_the_file_and_its_value_is_yaml(tmp_path: Path) -> None:
    path = _write(tmp_path, "finetune: { lr: [0.1], steps: 5 }")
    recipe = load_recipe(path, [("finetune.lr", "[0.001, 0.002]"), ("ingest.source.path", "~")])
    assert recipe.finetune.lr == (0.001, 0.002)
    assert recipe.finetune.steps == 5
    assert recipe.ingest.source.path is None


def test_an_override_fills_a_section_that_the_file_leaves_empty(tmp_path: Path) -> None:
    assert load_recipe(_write(tmp_path, "pretrain:\n"), [("pretrain.steps", "7")]).pretrain.steps == 7


def test_an_override_that_is_not_yaml_is_the_text_it_is(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path, ""), [("ingest.source.pattern", "**/*.txt")])
    assert recipe.ingest.source.pattern == "**/*.txt"
    with pytest.raises(ConfigError, match=r"--finetune\.lr: finetune\.lr: .*'\[0\.001'"):
        load_recipe(_write(tmp_path, ""), [("finetune.lr", "[0.001")])


def test_an_override_that_reaches_into_a_single_value_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--pretrain\.steps\.more reaches into 'steps'"):
        load_recipe(_write(tmp_path, "pretrain: { steps: 3 }"), [("pretrain.steps.more", "1")])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"a: [1", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"- one\n- two\n", "holds a list"),
        (b"only words", "holds a str"),
        (b"1: 2\n", "recipe.yaml:1: 1: "),
        (b"ingest: 3\n", "recipe.yaml:1: ingest: "),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_words(tmp_path: Path, body: bytes, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(body)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_a_recipe_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path / name)


def test_an_empty_recipe_is_all_defaults(tmp_path: Path) -> None:
    assert load_recipe(_write(tmp_path, "")) == PipelineSpec()


def test_a_spec_survives_the_way_through_json() -> None:
    recipe = load_recipe(REPOSITORY / "recipes" / "quickstart.yaml")
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe


def test_stages_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fragment_tokens=512 must not exceed model\.context_tokens=256"):
        parse_recipe({"finetune": {"fragment_tokens": 512}})
