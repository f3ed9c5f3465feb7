"""What a submitted job brings to the cluster: this project and a recipe, and nothing else.

recipe.yaml
foundation_core/ cluster/ flows/     the source that runs now and the pages that go with it, without bytecode
foundation_pipeline.dist-info/       so that sources, families and so on are found by their names
pyproject.toml, README.md            so that publish can pack the source into the model; in a checkout only
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

from foundation_core.tracking.wheel import PROJECT, source_folder

PACKAGES = ("foundation_core", "cluster", "flows")
RECIPE_FILE = "recipe.yaml"
SOURCE = Path(__file__).parents[1]


@contextmanager
def working_folder(recipe: Path, *, installed: bool) -> Iterator[Path]:
    """A folder that holds what a job needs, for as long as the block lasts.

    Args:
        installed: the cluster has this project; the folder holds the recipe alone.
    """
    with tempfile.TemporaryDirectory(prefix="foundation-job-") as name:
        folder = Path(name)
        shutil.copyfile(recipe, folder / RECIPE_FILE)
        if not installed:
            _copy_project(folder)
        yield folder


def _copy_project(folder: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(SOURCE / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
    information = folder / f"{PROJECT.replace('-', '_')}.dist-info"
    information.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (information / name).write_text(distribution(PROJECT).read_text(name) or "")
    if source_folder() == SOURCE:
        for name in ("pyproject.toml", "README.md"):
            shutil.copyfile(SOURCE / name, folder / name)
