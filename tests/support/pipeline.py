"""A pipeline in miniature, run once through the real Prefect, Ray, DeepSpeed and MLflow, by the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.workplace import Ended, Workplace, copy_corpus, make_workplace


@pytest.fixture(scope="session")
def miniature_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few small packages of the standard library."""
    return copy_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def workplace(tmp_path: Path, miniature_corpus: Path) -> Workplace:
    """An empty data folder with the miniature recipe."""
    return make_workplace(tmp_path, miniature_corpus)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, miniature_corpus: Path) -> tuple[Workplace, Ended]:
    """A workplace in which the whole pipeline ran once, and how that ended."""
    place = make_workplace(tmp_path_factory.mktemp("finished"), miniature_corpus)
    return place, place.run("run", str(place.recipe))


@pytest.fixture
def copied(finished: tuple[Workplace, Ended], tmp_path: Path) -> Callable[[], Workplace]:
    """Makes a workplace that begins where the finished one ended; MLflow starts anew."""

    def copy() -> Workplace:
        place = finished[0]
        home = tmp_path / "home"
        shutil.copytree(place.home / "results", home / "results")
        return Workplace(home, place.recipe)

    return copy
