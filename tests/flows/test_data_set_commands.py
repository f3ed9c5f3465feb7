"""`foundation card`, `peek` and `verify`: data sets by folder or by name, and mistakes answered for people."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flows import artifacts
from flows.cli import main
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.pages.card import CARD_FOLDER, MARKDOWN_FILE
from foundation_core.store import Result
from tests.support.shown import KEY


@pytest.fixture
def home(shown: Result, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of the little corpus, as the environment names it."""
    monkeypatch.setenv("FOUNDATION_HOME", str(shown.folder.parents[2]))
    return shown.folder.parents[2]


@pytest.mark.parametrize("name", ["ingest", KEY, KEY[:4], f"shown-{KEY}", "FOLDER", "FOLDER/tokens/train"])
def test_a_data_set_is_found_by_its_folder_and_by_each_name_of_its_result(
    shown: Result, home: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["peek", name.replace("FOLDER", str(shown.folder)), "--document", "folder/a/03.txt"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    table = ShardDataset(shown.folder / "documents").table(0)
    row = table["document"].to_pylist().index("folder/a/03.txt")
    assert f"documents shard 0 (shard-00000.arrow), row {row} tokens/" in words
    assert "folder/c/copy of 03.txt copies <= 1 2 folder/a/03.txt" in words
    assert "packed row" in words
    assert "begins here" in words


def test_what_a_document_tells_a_terminal_to_do_is_shown_and_not_done(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["peek", "ingest", "--document", "folder/a/00.txt"]) == 0
    said = capsys.readouterr().out
    assert "␛[2J" in said
    assert [sign for sign in said if not sign.isprintable() and sign != "\n"] == []


def test_the_card_is_printed_as_markdown_and_written_as_a_page(
    shown: Result, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", "ingest", "--page", str(tmp_path / "card.html")]) == 0
    assert capsys.readouterr().out == (shown.folder / CARD_FOLDER / MARKDOWN_FILE).read_text()
    assert (tmp_path / "card.html").read_text().startswith("<!doctype html>")


def test_a_look_is_written_as_a_page_and_ids_stand_behind_tokens(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["peek", "ingest", "--seed", "5", "--ids", "--page", str(tmp_path / "look.html")]) == 0
    assert capsys.readouterr().out == ""
    assert "<sub>" in (tmp_path / "look.html").read_text()
    assert main(["peek", "ingest", "--seed", "5", "--count", "1"]) == 0
    without = capsys.readouterr().out
    assert main(["peek", "ingest", "--seed", "5", "--count", "1", "--ids"]) == 0
    assert len(capsys.readouterr().out) > 1.3 * len(without)


@pytest.mark.parametrize("command", ["card", "peek", "verify"])
@pytest.mark.parametrize("name", ["nothing", "/nowhere/at/all", "EMPTY"])
def test_what_is_no_data_set_is_a_message_and_exit_status_2(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    assert main([command, name.replace("EMPTY", str(tmp_path))]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("foundation: ")
    assert "no data set" in said.err or "is no folder, and no ingest result" in said.err


def test_a_document_that_is_not_there_is_answered_with_near_ones(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["peek", "ingest", "--document", "folder/a/3.txt"]) == 2
    assert "folder/a/03.txt" in capsys.readouterr().err


def test_verify_says_whole_or_names_the_damaged_file_with_exit_status_1(
    shown: Result, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "ingest"]) == 0
    assert f"{shown.folder} is whole: " in capsys.readouterr().out
    copied = shutil.copytree(shown.folder, tmp_path / "copied")
    path = copied / "tokens" / "train" / "shard-00000.arrow"
    path.write_bytes(path.read_bytes().replace(b"folder/a", b"folder/x", 1))
    assert main(["verify", str(copied)]) == 1
    assert f"{path} is damaged: it was edited" in capsys.readouterr().out


def test_the_run_of_an_ingestion_shows_its_card_in_prefect_and_other_stages_none(
    shown: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(artifacts, "create_markdown_artifact", lambda text, **rest: made.update({rest["key"]: text}))
    artifacts.show_card(shown)
    assert made == {"data-card": (shown.folder / CARD_FOLDER / MARKDOWN_FILE).read_text()}
    artifacts.show_card(Result("pretrain", "", "", tmp_path, {}, 0.0))
    assert len(made) == 1
