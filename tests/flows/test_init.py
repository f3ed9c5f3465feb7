"""`foundation init`: a recipe that is checked, said in a line, and never written over another."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from foundation_core.recipe import load_recipe
from tests.support.workplace import Workplace


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """A data folder, and two folders of text beside it."""
    (tmp_path / "home").mkdir()
    for group in ("apples", "bridges"):
        (tmp_path / "texts" / group).mkdir(parents=True)
        for number in range(30):
            text = "\n".join(f"{group} have number {number * line} and more to say of {line}" for line in range(40))
            (tmp_path / "texts" / group / f"{number:02d}.txt").write_text(text)
    return Workplace(tmp_path / "home", tmp_path / "mine" / "recipe.yaml")


def _init(place: Workplace, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", "init", str(place.recipe.parent), *arguments]
    return subprocess.run(
        command, env=place.environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


def test_a_folder_of_texts_gets_a_recipe_that_is_not_overwritten(place: Workplace) -> None:
    texts = str(place.home.parent / "texts")
    done = _init(place, "--texts", texts)
    assert done.returncode == 0, done.stderr
    assert f"next      foundation run {place.recipe}" in done.stdout
    recipe = load_recipe(place.recipe)
    assert (recipe.name, recipe.last, recipe.finetune.classes) == ("mine", "publish", 2)
    before = place.recipe.read_text()
    again = _init(place, "--texts", texts, "--labels", "none")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert place.recipe.read_text() == before
    unlabelled = _init(place, "--texts", texts, "--labels", "none", "--force")
    assert "labels    none that can be classes: the task is to go on with a text" in unlabelled.stdout
    assert load_recipe(place.recipe).finetune.task == "continue_text"


def test_a_table_with_labels_gets_one_too(place: Workplace) -> None:
    table = place.home.parent / "reviews.csv"
    with open(table, "w", newline="") as sink:
        lines = csv.writer(sink)
        lines.writerow(["body", "stars"])
        lines.writerows([f"row {row}: {'bad' if row % 2 else 'good'} " * 20, row % 2] for row in range(200))
    done = _init(place, "--texts", str(table), "--text-field", "body", "--label-field", "stars", "--name", "reviews")
    assert done.returncode == 0, done.stderr
    recipe = load_recipe(place.recipe)
    assert (recipe.name, recipe.finetune.classes) == ("reviews", 2)
    wrong = _init(place, "--texts", str(table), "--force")
    assert wrong.returncode == 2
    assert "has no column 'text'\n  Allowed: body, stars" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nobody said where the texts are"),
        (["--texts", "/nowhere"], "the source folder /nowhere is not there"),
        (["--texts", "TEXTS", "--pattern", "*.md"], "the source is empty"),
        (["--texts", "TEXTS", "--name", "My Name"], "name: String should match pattern"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(place: Workplace, arguments: list[str], words: str) -> None:
    texts = str(place.home.parent / "texts")
    done = _init(place, *(word.replace("TEXTS", texts) for word in arguments))
    assert done.returncode == 2, done.stdout
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not place.recipe.parent.exists()
