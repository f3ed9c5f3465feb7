"""A first recipe fits the texts: its sizes follow from them, and what it asks of the labels they can give."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from foundation_core.adapt.continuation import ContinueText
from foundation_core.adapt.fragments import PackageOfFragment
from foundation_core.data.split import SPLITS
from foundation_core.errors import DataError
from foundation_core.recipe import parse_recipe
from foundation_core.specs import PipelineSpec, SourceSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.starter import recipe_text, survey
from tests.support.tasks import ingested


def _recipe(source: SourceSpec, *, labelled: bool = True) -> PipelineSpec:
    return parse_recipe(yaml.safe_load(recipe_text(survey(source), "mine", 1, labelled=labelled)))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> SourceSpec:
    """Four groups of text."""
    root = tmp_path_factory.mktemp("texts")
    ingested(root)
    return SourceSpec(kind="folder", path=str(root / "source"))


def test_ingest_and_the_task_accept_what_the_recipe_asks_for(
    texts: SourceSpec, tmp_path: Path, serial_context: Callable[[Path], Context]
) -> None:
    recipe = _recipe(texts)
    assert recipe.last == "publish"
    assert recipe.finetune.classes >= 2
    ingest(recipe.ingest, {}, serial_context(tmp_path))
    data = PackageOfFragment().data(tmp_path, recipe.finetune)
    assert len(data.classes) == recipe.finetune.classes
    assert len(data.train) == recipe.finetune.classes * recipe.finetune.all_labels


def test_without_labels_the_task_is_to_go_on_with_the_texts_and_it_finds_them_long_enough(
    texts: SourceSpec, tmp_path: Path, serial_context: Callable[[Path], Context]
) -> None:
    recipe = _recipe(texts, labelled=False)
    assert (recipe.last, recipe.finetune.task) == ("publish", "continue_text")
    ingest(recipe.ingest, {}, serial_context(tmp_path))
    data = ContinueText().data(tmp_path, recipe.finetune)
    assert min(len(data.split(split)) for split in SPLITS) > 0


def test_where_a_split_has_short_texts_alone_the_run_ends_with_the_trunk(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:03d}.txt").write_text(f"{number} {number**5} short")
    source = SourceSpec(kind="folder", path=str(tmp_path), pattern="*.txt")
    assert _recipe(source).last == "pretrain"
    assert _recipe(source, labelled=False).last == "pretrain"
    for number in range(300):
        (tmp_path / f"{number:03d}.txt").write_text(f"nobody sorted the text of number {number}\n" * 20)
    assert _recipe(source).finetune.task == "continue_text", "a negative control"


def test_more_text_gets_a_larger_model_and_no_more_steps_than_its_passes(tmp_path: Path, texts: SourceSpec) -> None:
    sizes = []
    for rows in (60, 6_000):
        path = tmp_path / f"{rows}.jsonl"
        words = [f"w{number % 97} x{number % 31} y{number % 1009}" for number in range(40)]
        lines = [json.dumps({"text": " ".join([f"row {row}", *words])}) for row in range(rows)]
        path.write_text("\n".join(lines))
        sizes.append(_recipe(SourceSpec(kind="table", path=str(path))).pretrain)
    small, large = sizes
    assert small.model.trunk.width < large.model.trunk.width
    assert small.model.context_tokens < large.model.context_tokens
    assert small.steps < large.steps


def test_what_ingest_would_refuse_is_refused(tmp_path: Path) -> None:
    source = SourceSpec(kind="folder", path=str(tmp_path), pattern="*.txt")
    with pytest.raises(DataError, match="the source is empty"):
        survey(source)
    (tmp_path / "a.txt").write_text("one text alone")
    with pytest.raises(DataError, match="1 documents are too few to split"):
        survey(source)
    for number in range(9):
        (tmp_path / f"{number}.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="9 of 10 documents cannot be read"):
        survey(source)
