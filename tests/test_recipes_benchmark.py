"""The page of what recipes reach is made from the record, which says what a run's own results said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.recipes import BARS, PAGE, RECORD, missing_data, page, reached

ROOT = Path(__file__).parents[1]


def test_the_page_is_that_of_the_record() -> None:
    assert PAGE.read_text() == page(json.loads(RECORD.read_text()))


def test_every_recipe_on_record_is_one_that_there_is() -> None:
    assert set(json.loads(RECORD.read_text())) <= {path.stem for path in (ROOT / "recipes").glob("*.yaml")}


@pytest.mark.parametrize("name", sorted(BARS))
def test_a_bar_names_a_figure_that_the_page_shows_with_its_verdict(name: str) -> None:
    place, bar = BARS[name]
    record = json.loads(RECORD.read_text())
    if name not in record:
        pytest.skip(f"{name} was not run since the record was begun")
    value = reached(record[name], place)
    assert f"{value:.3f} (bar {bar}) {'met' if value >= bar else 'MISSED'}" in PAGE.read_text()


def test_a_recipe_whose_data_is_not_here_is_left_out_by_its_path(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    for path, missing in (("nowhere/text.txt", "nowhere/text.txt"), ("https://example.org/x", ""), ("recipes", "")):
        recipe.write_text(json.dumps({"ingest": {"source": {"path": path}}}))
        assert missing_data(recipe) == missing
    recipe.write_text(json.dumps({"ingest": {"source": {"kind": "digits"}}}))
    assert missing_data(recipe) == ""
