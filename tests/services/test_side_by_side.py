"""Runs that know nothing of each other do not meet, and a folder of the user's does not pass for one of ours."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from foundation_core.store import load_result
from tests.support.workplace import Workplace, make_workplace

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class UsersFolder(Workplace):
    """A workplace in which commands are run from a folder with packages of the user's that are called like ours."""

    @property
    def folder(self) -> Path:
        """Where commands are run."""
        return self.home.parent / "mine"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `foundation` there."""
        command = [str(Path(sys.executable).with_name("foundation")), *arguments]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder
        )


@pytest.fixture
def users_folder(workplace: Workplace) -> UsersFolder:
    """A folder whose packages raise when they are imported."""
    place = UsersFolder(workplace.home, workplace.recipe)
    for name in ("flows", "cluster", "foundation_core"):
        package = place.folder / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('a package of the user was imported')\n")
    return place


def test_the_packages_of_the_user_would_be_imported_by_a_plain_module_run(users_folder: UsersFolder) -> None:
    """Negative control: what `python -m` does in that folder if nobody takes care."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster.job"], cwd=users_folder.folder, capture_output=True, text=True
    )
    assert "a package of the user was imported" in done.stderr


def test_packages_of_the_users_with_our_names_do_no_harm(users_folder: UsersFolder) -> None:
    ended = users_folder.run("ingest", str(users_folder.recipe))
    assert ended.status == 0, ended.output
    assert "done" in ended.output


@pytest.mark.slow
def test_nor_do_they_in_the_jobs_of_a_cluster(users_folder: UsersFolder) -> None:
    ended = users_folder.run("pretrain", str(users_folder.recipe))
    assert ended.status == 0, ended.output


@pytest.mark.slow
def test_two_data_folders_at_once_do_not_meet_and_come_to_the_same(tmp_path: Path, miniature_corpus: Path) -> None:
    places = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        places.append(make_workplace(tmp_path / name, miniature_corpus))
    commands = [place.start("pretrain", str(place.recipe)) for place in places]
    outputs = [command.communicate(timeout=400)[0] for command in commands]
    for command, output in zip(commands, outputs, strict=True):
        assert command.returncode == 0, output
    for stage in ("ingest", "pretrain"):
        contents = {load_result(folder).content for place in places for folder in _folders(place, stage)}
        assert len(contents) == 1, f"two runs of {stage} came to different results"
    for place in places:
        assert len(_folders(place, "pretrain")) == 1
        assert place.processes() == []


def _folders(place: Workplace, stage: str) -> list[Path]:
    return list((place.home / "results" / stage).glob("*"))
