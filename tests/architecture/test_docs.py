"""What the documents name exists: paths, make targets, commands of the `foundation` program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.cli import COMMANDS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [path for path in sorted(ROOT.rglob("*.md")) if not {".venv", "data"} & set(path.relative_to(ROOT).parts)]
FOLDERS = "foundation_core|cluster|flows|tests|infra|docs|recipes|benchmarks|experiments"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    named = set(re.findall(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./-]*\w)", text))
    linked = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    missing = {path for path in named if not (ROOT / path).exists()}
    missing |= {link for link in linked if not (document.parent / link).exists()}
    assert missing == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_target_and_command_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets
    assert set(re.findall(r"`foundation ([a-z]+)", text)) <= set(COMMANDS)


def test_the_readme_names_every_folder_of_the_tree() -> None:
    readme = (ROOT / "README.md").read_text()
    folders = FOLDERS.split("|")
    assert [folder for folder in folders if f"{folder}/" not in readme] == []


def test_the_readme_has_a_line_for_every_module() -> None:
    readme = (ROOT / "README.md").read_text()
    modules = [path for package in ("foundation_core", "cluster", "flows") for path in (ROOT / package).rglob("*.py")]
    assert [path.name for path in modules if path.name != "__init__.py" and f"  {path.name} " not in readme] == []
