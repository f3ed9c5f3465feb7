"""Units of work: whoever is first names them, nobody trusts a damaged one, and what nobody uses can be removed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from foundation_core.data.units.store import Pruned, in_use, prune
from foundation_core.data.units.work import Unit
from foundation_core.errors import SetupError
from tests.support.data_folder import DataFolder, little_ingestion, little_text, little_texts, units, write_texts

DAY = 86_400
HOLDS = """
import sys
from pathlib import Path
from foundation_core.data.units.store import in_use
with in_use(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_unit_is_named_by_all_that_decides_it(tmp_path: Path) -> None:
    unit = Unit.of(tmp_path, "read", ["a", {"b": 1}])
    assert unit == Unit.of(tmp_path, "read", ["a", {"b": 1}])
    others = [Unit.of(tmp_path, "read", ["a", {"b": 2}]), Unit.of(tmp_path, "encode", ["a", {"b": 1}])]
    assert unit.folder not in [other.folder for other in others]
    assert unit.identity not in [other.identity for other in others]


def test_many_who_commit_one_unit_at_once_leave_one_whole_unit(tmp_path: Path) -> None:
    files = {"a.arrow": b"a" * 10_000, "b.arrow": b"b"}
    for number in range(20):
        unit = Unit.of(tmp_path, "read", number)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _, unit=unit: unit.commit(files, documents=7), range(8)))
        assert unit.finished()
        assert unit.facts() == {"documents": 7}
    assert len(list(tmp_path.glob("*/*/*"))) == 20  # nothing half made is left


def test_a_damaged_unit_is_not_finished_and_is_written_over(tmp_path: Path) -> None:
    unit = Unit.of(tmp_path, "read", "a")
    unit.commit({"a.arrow": b"right"})
    for damage in (b"wrong", b"right, and more", None):
        (unit.folder / "a.arrow").unlink() if damage is None else (unit.folder / "a.arrow").write_bytes(damage)
        assert not unit.finished()
        unit.commit({"a.arrow": b"right"})
        assert unit.finished()
    assert not Unit(unit.folder, "another").finished()


def test_pruning_removes_what_nobody_used_for_a_while_and_what_killed_writers_left(tmp_path: Path) -> None:
    old, used, new = (Unit.of(tmp_path, "read", name) for name in ("old", "used", "new"))
    for unit in (old, used, new):
        unit.commit({"a.arrow": bytes(1000)})
    left = new.folder.with_name("half-made.partial")
    left.mkdir()
    for unit in (old, used):
        os.utime(unit.folder, (0, time.time() - 40 * DAY))
    assert used.claimed()
    before = time.time() - 30 * DAY
    foreseen = prune(tmp_path, before, remove=False)
    assert old.finished()
    assert prune(tmp_path, before) == foreseen
    assert (foreseen.removed, foreseen.left) == (2, 2)
    assert 1000 < foreseen.removed_bytes < foreseen.left_bytes < 3000
    assert [unit.finished() for unit in (old, used, new)] == [False, True, True]
    assert not left.exists()
    assert prune(tmp_path / "nowhere", before) == Pruned()


def test_pruning_is_refused_while_an_ingestion_runs_and_no_longer(tmp_path: Path) -> None:
    unit = Unit.of(tmp_path, "read", "a")
    unit.commit({"a.arrow": b"a"})
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with in_use(tmp_path), pytest.raises(SetupError, match="an ingestion is using the units"):
            prune(tmp_path, time.time() + DAY)
        other.kill()  # what is killed holds nothing
    assert unit.finished()
    assert prune(tmp_path, time.time() + DAY).removed == 1


def test_an_ingestion_after_pruning_does_again_what_is_gone_and_nothing_else(tmp_path: Path) -> None:
    folder, raw = DataFolder(tmp_path / "home"), write_texts(tmp_path / "raw", little_texts(30))
    spec = little_ingestion(raw)
    first = folder.ingest(spec)
    for path in (tmp_path / "home" / "units").glob("*/*/*"):
        os.utime(path, (0, 0))
    write_texts(raw, {**little_texts(30), "029b.txt": little_text("new")})
    done = units(folder.ingest(spec))["read"][1]
    pruned = prune(tmp_path / "home" / "units", time.time() - DAY)
    assert 0 < pruned.removed < pruned.left
    again = folder.ingest(spec)
    assert units(again)["read"][1] == 0 < done
    assert again.outputs.keys() == first.outputs.keys()
