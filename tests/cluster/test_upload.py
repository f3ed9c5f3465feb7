"""A submitted job brings the project alone: no data, no environment, no history, no bytecode, no tests."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

from cluster.upload import SOURCE, working_folder
from foundation_core.tracking.wheel import PROJECT

RECIPE = "name: little\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe in a folder with much beside it that is nobody's business."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secret").write_text("secret")
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return tmp_path / "mine.yaml"


def _uploaded(folder: Path, target: Path) -> dict[str, bytes]:
    """What Ray packs of a working folder."""
    create_package(str(folder), target, include_gitignore=True)
    with zipfile.ZipFile(target) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def test_what_is_uploaded_is_the_source_of_the_project_and_the_recipe(recipe: Path, tmp_path: Path) -> None:
    with working_folder(recipe, installed=False) as folder:
        files = _uploaded(folder, tmp_path / "job.zip")
    assert not folder.exists()
    # what the history knows or could take up, pages and templates included
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "foundation_core", "cluster", "flows"]
    names = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=True).stdout.split()
    source = {name: (SOURCE / name).read_bytes() for name in names}
    assert {Path(name).suffix for name in source} > {".py", ".html", ".js"}
    beside = {name for name in files if name not in source}
    assert {name: files[name] for name in source} == source
    assert beside == {
        "recipe.yaml", "pyproject.toml", "README.md",
        "foundation_pipeline.dist-info/METADATA", "foundation_pipeline.dist-info/entry_points.txt",
    }  # fmt: skip
    assert files["recipe.yaml"].decode() == RECIPE


def test_where_the_project_is_installed_the_recipe_goes_alone(recipe: Path, tmp_path: Path) -> None:
    with working_folder(recipe, installed=True) as folder:
        assert _uploaded(folder, tmp_path / "job.zip") == {"recipe.yaml": RECIPE.encode()}


def test_the_uploaded_project_works_by_itself_and_finds_its_parts_by_name(recipe: Path) -> None:
    """In a Python without this project: -S leaves out what is installed, -P the current folder."""
    program = "import cluster, foundation_core.plugins as p; print(cluster.__file__); print(p.names('sources'))"
    with working_folder(recipe, installed=False) as folder:
        done = subprocess.run(
            [sys.executable, "-S", "-P", "-c", program], env={"PYTHONPATH": str(folder)}, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    where, names = done.stdout.splitlines()
    assert Path(where).is_relative_to(folder)
    ours = distribution(PROJECT).entry_points.select(group="foundation.sources")
    assert names == str(sorted(point.name for point in ours))
    assert "'folder'" in names


def test_what_lies_beside_the_packages_would_be_seen(recipe: Path, tmp_path: Path) -> None:
    """Negative control: the same look at a folder with more in it."""
    with working_folder(recipe, installed=True) as folder:
        (folder / "data").mkdir()
        (folder / "data" / "secret").write_text("secret")
        assert "data/secret" in _uploaded(folder, tmp_path / "job.zip")


def test_rays_own_command_uploads_no_more_of_a_checkout_than_a_job_needs(tmp_path: Path) -> None:
    """`.gitignore` and `.rayignore` leave out data, environments, history, tests and documents."""
    names = {name.split("/")[0] for name in _uploaded(SOURCE, tmp_path / "checkout.zip")}
    assert {"foundation_core", "cluster", "flows", "recipes", "pyproject.toml", "README.md"} <= names
    assert names & {".git", ".venv", "data", "tests", "docs", "benchmarks", "infra", ".ci"} == set()
