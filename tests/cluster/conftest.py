"""A small real corpus, and jobs that ingest it."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.job import Job
from cluster.planning import source_content_of, stage_key
from foundation_core.recipe import parse_recipe
from foundation_core.specs import PipelineSpec
from foundation_core.store import Store

Recipes = Callable[..., PipelineSpec]
Jobs = Callable[..., Job]


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some fifty small modules of the standard library."""
    folder = tmp_path_factory.mktemp("corpus")
    library = Path(sysconfig.get_path("stdlib"))
    for package in ("email", "json", "urllib", "html", "importlib", "concurrent", "wsgiref"):
        (folder / package).mkdir()
        for path in sorted((library / package).glob("*.py")):
            if path.stat().st_size < 20_000:
                shutil.copy(path, folder / package)
    return folder


@pytest.fixture(scope="session")
def ingest_recipe(small_corpus: Path) -> Recipes:
    """Builds a recipe whose ingest stage reads the small corpus in many units; keywords change that stage."""

    def build(**ingest: Any) -> PipelineSpec:
        usual: dict[str, Any] = {
            "source": {"kind": "folder", "path": str(small_corpus)},
            "split": {"validation_fraction": 0.2, "test_fraction": 0.2},
            "tokenizer": {"vocabulary": 300},
            "unit_bytes": 4096,
            "workers": 1,
        }
        return parse_recipe({"name": "small", "ingest": {**usual, **ingest}, "pretrain": {"workers": 1}})

    return build


@pytest.fixture(scope="session")
def make_ingest_job(ingest_recipe: Recipes) -> Callable[..., Job]:
    """Builds the ingest job of such a recipe in a data folder."""

    def build(home: Path, **ingest: Any) -> Job:
        recipe = ingest_recipe(**ingest)
        content = source_content_of(recipe) if "source" not in ingest else "0" * 64
        key = stage_key(recipe, "ingest", {}, content)
        folder = Store(home / "results").folder(recipe.name, key)
        return Job(
            stage="ingest",
            spec=recipe.ingest.model_dump(mode="json"),
            inputs={},
            folder=str(folder),
            key={"digest": key.digest, "parts": dict(key.parts)},
        )

    return build


@pytest.fixture
def ingest_job(tmp_path: Path, make_ingest_job: Callable[..., Job]) -> Jobs:
    """The same in a data folder of the test's own."""
    return partial(make_ingest_job, tmp_path / "home")
