"""`foundation runs`, `logs` and `stop` tell what a data folder holds, and stop what runs there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cluster.leases import lease
from cluster.runs import find, look, matches
from cluster.settings import Settings
from cluster.stopping import stop_stage
from foundation_core.errors import ConfigError, Stopped, TransientError
from foundation_core.events import EVENTS_FILE, EventLog
from tests.support.workplace import Workplace

KEYS = ("0123456789ab", "0123ffffffff", "fedcba987654")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data folder: an ingest that failed, a pretrain that was stopped, and one that was killed."""
    for stage, key in zip(("ingest", "pretrain", "pretrain"), KEYS, strict=True):
        events = EventLog(tmp_path / "results" / stage / f"little-{key}")
        events.write("start", key=key)
        events.phase("read")
        events.progress(3, 8, "units")
    stopped = Stopped("training stopped after step 30 of 400, saved")
    EventLog(tmp_path / "results" / "ingest" / f"little-{KEYS[0]}").write(
        "end", status="failed", error=ConfigError("found", fix="fix").to_json()
    )
    EventLog(tmp_path / "results" / "pretrain" / f"little-{KEYS[1]}").write(
        "end", status="stopped", error=stopped.to_json()
    )
    return tmp_path


def _place(home: Path) -> Workplace:
    return Workplace(home, home / "recipe.yaml")


def test_every_run_is_listed_with_its_state_newest_first(home: Path) -> None:
    ended = _place(home).run("runs", "--json")
    assert ended.status == 0, ended.output
    rows = json.loads(ended.output)
    assert {row["key"]: row["state"] for row in rows} == dict(
        zip(KEYS, ("failed", "stopped", "interrupted"), strict=True)
    )
    latest = [row["started"] + row["seconds"] for row in rows]
    assert latest == sorted(latest, reverse=True)
    assert {(row["stage"], row["recipe"]) for row in rows} == {("ingest", "little"), ("pretrain", "little")}
    for folder in (home / "results").glob("*/*"):  # a copied data folder has other times of files
        os.utime(folder / EVENTS_FILE, (0.0, 1e9 if KEYS[0] in folder.name else 1.0))
    (only,) = json.loads(_place(home).run("runs", "--json", "--last", "1").output)
    assert only == rows[0]
    assert not (home / "mlflow.db").exists(), "looking made a database"


def test_the_table_says_the_same_and_an_empty_folder_is_no_error(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = _place(home).run("runs").output
    for word in (*KEYS, "interrupted", "stopped", "failed", "little"):
        assert word in output
    empty = _place(tmp_path_factory.mktemp("empty")).run("runs", "--json")
    assert (empty.status, json.loads(empty.output)) == (0, [])


def test_a_held_lease_is_a_running_stage_and_a_live_job_is_too(home: Path) -> None:
    folder = home / "results" / "pretrain" / f"little-{KEYS[2]}"
    assert look(folder).state == "interrupted"
    with lease(folder):
        assert look(folder).state == "running"
    assert look(folder, lambda stage, key: (stage, key) == ("pretrain", KEYS[2])).state == "running"
    stopped = home / "results" / "pretrain" / f"little-{KEYS[1]}"
    assert look(stopped, lambda stage, key: True).state == "stopped", "it said its last word; its job is leaving"


@pytest.mark.parametrize("name", ["ingest", KEYS[0], KEYS[0][:5], f"little-{KEYS[0]}", f"ingest-{KEYS[0]}-0"])
def test_a_run_is_found_by_each_of_its_names(home: Path, name: str) -> None:
    assert find(home / "results", name).name == f"little-{KEYS[0]}"


def test_what_names_two_runs_or_none_is_refused_with_what_there_is(home: Path) -> None:
    with pytest.raises(ConfigError, match="is 2 runs of") as refused:
        find(home / "results", "0123")
    assert f"ingest little-{KEYS[0]}" in str(refused.value)
    ended = _place(home).run("logs", "evaluate")
    assert ended.status == 2
    assert "is no run of" in ended.output
    assert "Traceback" not in ended.output
    assert matches(home / "results", "012") == [], "three digits are too few"


def test_logs_are_plain_lines_with_how_it_ended(home: Path) -> None:
    ended = _place(home).run("logs", "--follow", KEYS[0])
    assert ended.status == 0, ended.output
    texts = [line.split(maxsplit=3)[3] for line in ended.output.splitlines()]
    assert texts == ["starts", "read: 3 of 8 units", "failed: found", "To do: fix"]


def test_nothing_that_runs_is_exit_status_1_and_asks_nobody(home: Path) -> None:
    for name in ("pretrain", KEYS[0], "evaluate"):
        ended = _place(home).run("stop", name)
        assert ended.status == 1
        assert "nothing runs in" in ended.output
    assert not list(home.glob("results/*/*/stop"))


def test_a_stage_that_dies_while_it_is_asked_is_told_as_such(home: Path) -> None:
    folder = home / "results" / "pretrain" / f"little-{KEYS[2]}"
    with pytest.raises(TransientError, match="died without a word"):
        stop_stage(folder, Settings(home))
