"""A process on another machine that does not see the folders of the run is refused before it reads anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from foundation_core.data.sources.documents import open_source
from foundation_core.data.sources.sight import Seeing, Sight, sight_of
from foundation_core.data.units import work as units
from foundation_core.data.units.work import Unit
from foundation_core.errors import SetupError
from foundation_core.specs import SourceSpec

ELSEWHERE = "another kernel"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03d}.py").write_text("x" * number)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, source: Path) -> Sight:
    """What a process on another machine must see."""
    (tmp_path / "result").mkdir()
    files = open_source(SourceSpec(kind="folder", path=str(source))).files()
    return replace(sight_of(tmp_path / "result", files), view=ELSEWHERE)


def lose_the_data_folder(sight: Sight) -> None:
    sight.mark.unlink()


def have_another_data_folder(sight: Sight) -> None:
    sight.mark.write_text("of another run")


def lose_the_source(sight: Sight) -> None:
    for path, _ in sight.files:
        path.unlink()


def have_another_source(sight: Sight) -> None:
    sight.files[-1][0].write_text("y")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lose_the_data_folder, "does not see the data folder of this run"),
        (have_another_data_folder, "does not see the data folder of this run"),
        (lose_the_source, "does not see the source as it was listed"),
        (have_another_source, r"texts/\d+\.py has 1 bytes there and had \d+"),
    ],
)
def test_a_machine_that_sees_something_else_is_refused(
    elsewhere: Sight, change: Callable[[Sight], None], words: str
) -> None:
    elsewhere.look()  # the negative control: all is as it was
    change(elsewhere)
    with pytest.raises(SetupError, match=words) as caught:
        elsewhere.look()
    assert os.uname().nodename in caught.value.found
    replace(elsewhere, view=sight_of(elsewhere.mark.parent, []).view).look()  # nobody looks where nothing can differ


def test_of_many_files_some_are_looked_at_from_all_over(elsewhere: Sight) -> None:
    assert 32 <= len(elsewhere.files) <= 64
    numbers = [int(path.stem) for path, _ in elsewhere.files]
    assert max(later - earlier for earlier, later in pairwise(numbers)) < 10


def test_a_process_looks_once_before_its_first_piece_and_a_refused_one_does_none(elsewhere: Sight) -> None:
    done = list[int]()
    seeing = Seeing(done.append, elsewhere)
    seeing(1)
    lose_the_data_folder(elsewhere)
    seeing(2)
    assert done == [1, 2]
    refused = Seeing(done.append, replace(elsewhere, word="another word"))
    for _ in range(2):
        with pytest.raises(SetupError):
            refused(3)
    assert done == [1, 2]


def test_a_unit_that_was_written_into_another_folder_of_the_same_path_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "_SEEN_SECONDS", 0.0)
    unit = Unit.of(tmp_path, "read", ["a"])
    with pytest.raises(SetupError, match="is not to be seen here"):
        unit.wait_until_seen()
    unit.commit({"a": b"b"})
    unit.wait_until_seen()
