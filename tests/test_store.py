"""Results: a folder is one when result.json is in it, and is found by the whole key."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from foundation_core.errors import DataError
from foundation_core.files import read_json, write_json
from foundation_core.identity import ActionKey, action_key
from foundation_core.specs import IngestSpec, SplitSpec
from foundation_core.store import IDS_FILE, RESULT_FILE, StageResult, Store, commit_result, load_result, record_ids

MADE = StageResult({"tokens": "abc"}, {"rows": 3}, 1.5)


def _key(seed: int = 0) -> ActionKey:
    return action_key("ingest", IngestSpec(split=SplitSpec(seed=seed)), {"source": "s"})


def test_a_committed_result_is_found_by_its_key_with_all_that_was_made(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.folder("name", _key())
    assert store.find(_key()) is None
    done = commit_result(folder, _key(), MADE)
    found = store.find(_key())
    assert found == done
    assert (found.outputs, found.summary, found.seconds) == (MADE.outputs, MADE.summary, MADE.seconds)
    assert store.find(_key(seed=1)) is None


def test_a_folder_without_a_result_is_no_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit_result(store.folder("name", _key()), _key(), MADE)
    (store.folder("name", _key()) / RESULT_FILE).unlink()
    assert store.find(_key()) is None
    assert store.history("ingest") == []
    with pytest.raises(DataError, match=r"result\.json is not there"):
        load_result(store.folder("name", _key()))


def test_work_is_found_under_any_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit_result(store.folder("first-name", _key()), _key(), MADE)
    assert store.folder("second-name", _key()) == store.folder("first-name", _key())


def test_keys_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    store, key = Store(tmp_path), _key()
    commit_result(store.folder("name", key), key, MADE)
    alike = ActionKey(key.stage, key.short + "0" * 52, key.parts)
    assert store.find(alike) is None
    assert store.find(key) is not None


def test_a_store_may_move(tmp_path: Path) -> None:
    store = Store(tmp_path / "here")
    commit_result(store.folder("name", _key()), _key(), MADE)
    shutil.move(tmp_path / "here", tmp_path / "there")
    found = Store(tmp_path / "there").find(_key())
    assert found is not None
    assert found.folder.is_relative_to(tmp_path / "there")
    assert str(tmp_path) not in (found.folder / RESULT_FILE).read_text()


def test_a_result_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    commit_result(tmp_path, _key(), MADE)
    body = read_json(tmp_path / RESULT_FILE)
    write_json(tmp_path / RESULT_FILE, {**body, "version": body["version"] + 1})
    with pytest.raises(DataError, match=r"has version 2\n  Allowed: versions up to 1\n  To do: upgrade"):
        load_result(tmp_path)


def test_the_launchers_ids_come_with_the_result(tmp_path: Path) -> None:
    commit_result(tmp_path, _key(), MADE)
    assert load_result(tmp_path).ids == {}
    record_ids(tmp_path, {"mlflow_run": "m", "prefect_run": "p"})
    assert load_result(tmp_path).ids == {"mlflow_run": "m", "prefect_run": "p"}
    assert (tmp_path / IDS_FILE).exists()


def test_history_is_newest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for age, seed in enumerate([2, 0, 1]):
        folder = store.folder("name", _key(seed))
        commit_result(folder, _key(seed), MADE)
        os.utime(folder / RESULT_FILE, (1000 - age, 1000 - age))
    assert [result.key for result in store.history("ingest")] == [_key(seed).digest for seed in [2, 0, 1]]


def test_equal_outputs_have_equal_content_whatever_they_were_made_from(tmp_path: Path) -> None:
    one = commit_result(tmp_path / "one", _key(0), MADE)
    same = commit_result(tmp_path / "same", _key(1), MADE)
    other = commit_result(tmp_path / "other", _key(0), StageResult({"tokens": "abd"}, MADE.summary, MADE.seconds))
    assert one.content == same.content != other.content
