"""A checkpoint is whole or it is not there, it says what it belongs to, and training does not wait for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from foundation_core.errors import CheckpointError
from foundation_core.events import EventLog, read_events
from foundation_core.files import PARTIAL, read_json, write_json
from foundation_core.specs import OptimizerSpec
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import Engine, EngineRequest, TorchEngine
from foundation_core.train.manifest import DAMAGED, MANIFEST_FILE, find_fault, finished, read_manifest, reading
from foundation_core.train.retention import Retention

IDENTITY = {"corpus": "c" * 64, "order": "0" * 64}


def _module(fill: float = 0.0) -> nn.Module:
    module = nn.Linear(4, 3)
    nn.init.constant_(module.weight, fill)
    return module


def _engine(fill: float = 0.0) -> TorchEngine:
    return TorchEngine(_module(fill), EngineRequest(OptimizerSpec()))


def _checkpoints(folder: Path, engine: Engine | None = None, keep: int = 2, **identity: str) -> Checkpoints:
    log = EventLog(folder.with_name(f"{folder.name}-events"))
    return Checkpoints(folder, engine or _engine(), {**IDENTITY, **identity}, Retention(keep), log)


def _save(folder: Path, *steps: int, engine: Engine | None = None, keep: int = 2) -> None:
    with _checkpoints(folder, engine, keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, {"labels": step})


def _restore(folder: Path, engine: Engine | None = None, **identity: str) -> tuple[int, dict[str, Any]] | None:
    with _checkpoints(folder, engine, **identity) as checkpoints:
        return checkpoints.restore()


def _newest(folder: Path) -> Path:
    return list(finished(folder).values())[-1]


def _events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for _, event in read_events(folder.with_name(f"{folder.name}-events")) if event["kind"] == kind]


def test_what_was_saved_comes_back_with_the_loops_state(tmp_path: Path) -> None:
    with _checkpoints(tmp_path, _engine(fill=2.5)) as checkpoints:
        checkpoints.save(7, {"labels": 12, "best_loss": None})
    engine = _engine()
    assert _restore(tmp_path, engine) == (7, {"labels": 12, "best_loss": None})
    assert torch.equal(engine.weights()["weight"], torch.full((3, 4), 2.5))


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path: Path) -> None:
    assert _restore(tmp_path / "nowhere") is None


def test_the_newest_is_restored_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    _save(tmp_path, 9, 10, 99, 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000099", "step-00000100"]
    assert _restore(tmp_path) == (100, {"labels": 100})


def test_a_step_may_be_saved_again(tmp_path: Path) -> None:
    _save(tmp_path, 3)
    with _checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, {"labels": 2})
    assert _restore(tmp_path) == (3, {"labels": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_what_is_saved_is_the_state_at_the_save_and_not_when_it_is_written(tmp_path: Path) -> None:
    """The thread is held back until the training has moved on."""
    moved = threading.Event()
    with _checkpoints(tmp_path, engine := _engine(fill=1.0)) as checkpoints:
        checkpoints._background.start(moved.wait)
        checkpoints.save(1, {})
        nn.init.constant_(engine.model.weight, 9.0)  # type: ignore[arg-type]
        assert finished(tmp_path) == {}, "and nothing is there before it is written"
        moved.set()
    _restore(tmp_path, restored := _engine())
    assert torch.equal(restored.weights()["weight"], torch.full((3, 4), 1.0))


def test_the_memory_of_the_first_save_serves_all(tmp_path: Path) -> None:
    engine = _engine()
    with _checkpoints(tmp_path, engine) as checkpoints:
        first = checkpoints._staging.copy(engine.fragments).memory
        assert checkpoints._staging.copy(engine.fragments).memory is first
        engine.model(torch.ones(1, 4)).sum().backward()
        engine.step(1e-3)  # now the optimizer has a state
        assert len(checkpoints._staging.copy(engine.fragments).memory) >= len(first)
        assert checkpoints._staging.copy(engine.fragments).memory is not first


# ------------------------------------------------------------------------------------------------ damage


def _edit(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


DAMAGES: list[tuple[Callable[[Path], Any], str, str]] = [
    (_edit, "rank-00000.safetensors", "changed"),
    (_truncate, "rank-00000.safetensors", "truncated"),
    (Path.unlink, "rank-00000.safetensors", "missing"),
    (_truncate, MANIFEST_FILE, "whole"),  # a line's end less: still the same JSON
    (lambda path: os.truncate(path, 9), MANIFEST_FILE, "manifest"),
    (lambda path: path.write_text("{}"), MANIFEST_FILE, "manifest"),
]


@pytest.mark.parametrize(("damage", "file", "named"), DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_by_its_fault_and_the_one_before_is_taken(
    tmp_path: Path, damage: Callable[[Path], Any], file: str, named: str
) -> None:
    folder = tmp_path / "them"
    _save(folder, 1, 2)
    damage(folder / "step-00000002" / file)
    if named == "whole":
        assert _restore(folder) == (2, {"labels": 2})
        return
    assert _restore(folder) == (1, {"labels": 1})
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000001", f"step-00000002{DAMAGED}{named}"]
    (failure,) = _events(folder, "failure")
    assert (failure["failure"], failure["step"], failure["budget_left"]) == ("corrupt_checkpoint", 2, 1)
    assert file in failure["what"] or named == "manifest"
    (recovered,) = _events(folder, "recovered")
    assert (recovered["failure"], recovered["step"]) == ("corrupt_checkpoint", 1)
    _save(folder, 2)
    assert _restore(folder) == (2, {"labels": 2}), "the step is done again"


def test_where_none_is_whole_nothing_is_begun_anew_and_nothing_is_renamed(tmp_path: Path) -> None:
    folder = tmp_path / "them"
    _save(folder, 1, 2)
    for checkpoint in finished(folder).values():
        _truncate(checkpoint / "rank-00000.safetensors")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"is whole: step 2: .*size that was saved; step 1: .*\n.*train anew"):
            _restore(folder)
    assert list(finished(folder)) == [1, 2]
    shutil.rmtree(folder)  # what the message says to do
    assert _restore(folder) is None


def test_where_the_last_whole_one_was_removed_by_hand_nothing_is_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "them"
    _save(folder, 1, 2)
    _edit(_newest(folder) / "rank-00000.safetensors")
    _restore(folder)
    shutil.rmtree(_newest(folder))
    with pytest.raises(CheckpointError, match="and there was one"):
        _restore(folder)


def _rewrite(folder: Path, **fields: Any) -> None:
    path = _newest(folder) / MANIFEST_FILE
    write_json(path, {**read_json(path), **fields})


def test_a_manifest_that_misses_a_workers_file_is_a_damaged_one(tmp_path: Path) -> None:
    folder = tmp_path / "them"
    _save(folder, 1, 2)
    _rewrite(folder, world=2)
    assert _restore(folder) == (1, {"labels": 1})


@pytest.mark.parametrize("version", [1, 2, 4])
def test_a_manifest_of_another_version_is_refused_and_stays(tmp_path: Path, version: int) -> None:
    """It is no damage: another version of this program can read it."""
    folder = tmp_path / "them"
    _save(folder, 1, 2)
    _rewrite(folder, version=version)
    with pytest.raises(CheckpointError, match=rf"manifest\.json has version {version}\n  Allowed: version 3"):
        _restore(folder)
    assert list(finished(folder)) == [1, 2]


@pytest.mark.parametrize("name", ["corpus", "order"])
def test_a_checkpoint_of_another_corpus_or_order_is_refused_by_name(tmp_path: Path, name: str) -> None:
    _save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=f"belongs to another training: its {name} is {IDENTITY[name]}"):
        _restore(tmp_path, **{name: "f" * 64})


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    other = TorchEngine(nn.Linear(4, 3, bias=False).requires_grad_(True), EngineRequest(OptimizerSpec()))
    other.model.register_parameter("another", nn.Parameter(torch.zeros(2)))
    with pytest.raises(CheckpointError, match="another"):
        _restore(tmp_path, other)


def test_the_manifest_lists_every_file_of_the_checkpoint(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    folder = _newest(tmp_path)
    body = read_manifest(folder)
    assert {entry["file"] for entry in body["files"]} | {MANIFEST_FILE} == {path.name for path in folder.iterdir()}
    assert find_fault(folder, body).name == "whole"


def test_what_a_killed_writer_left_is_removed_when_training_goes_on(tmp_path: Path) -> None:
    for name in (f"step-00000005.abc{PARTIAL}", "step-00000006"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rank-00000.safetensors").write_bytes(b"half")
    assert _restore(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_being_read_is_not_pruned_until_it_was(tmp_path: Path) -> None:
    _save(tmp_path, 1, keep=1)
    with reading(tmp_path / "step-00000001"):
        _save(tmp_path, 2, keep=1)
        assert list(finished(tmp_path)) == [1, 2]
    _save(tmp_path, 3, keep=1)
    assert list(finished(tmp_path)) == [3]


def test_what_may_not_be_continued_is_forgotten(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2)
    with _checkpoints(tmp_path) as checkpoints:
        checkpoints.forget(lambda step, state: step < 2 and state["labels"] == step)
        assert checkpoints.restore() == (1, {"labels": 1})


def test_a_damaged_one_that_may_not_be_continued_is_not_missed_when_all_are_forgotten(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2)
    _truncate(tmp_path / "step-00000002" / "rank-00000.safetensors")
    assert _restore(tmp_path) == (1, {"labels": 1})
    with _checkpoints(tmp_path) as checkpoints:
        checkpoints.forget(lambda step, state: step < 1)
        assert checkpoints.restore() is None, "training goes back to its start"
    assert [path.name for path in tmp_path.glob("forgotten-*")]


# ------------------------------------------------------------------------------------------------ disks and kills


FULL_DISK = """
import sys
from pathlib import Path
from torch import nn
from foundation_core.errors import SetupError
from foundation_core.specs import OptimizerSpec
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.retention import Retention
folder = Path(sys.argv[1])
for step, width in ((1, 100), (2, 1000)):
    engine = TorchEngine(nn.Linear(width, width), EngineRequest(OptimizerSpec()))
    try:
        with Checkpoints(folder, engine, {}, Retention(2)) as checkpoints:
            checkpoints.save(step, {})
            checkpoints.finish()
    except SetupError as error:
        print(error)
print([path.parent.name for path in folder.glob("*/manifest.json")])
"""


def test_a_full_disk_is_said_so_and_the_checkpoint_that_was_there_still_is(tmp_path: Path) -> None:
    # A mount in a namespace of its own: it is gone with the process.
    small_disk = f'mount -t tmpfs -o size=1m none "{tmp_path}" && exec "{sys.executable}" -c "$0" "{tmp_path}"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", small_disk, FULL_DISK]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this machine does not let a test mount a small disk")
    assert done.returncode == 0, done.stderr
    assert "no room left on the disk while writing" in done.stdout
    assert done.stdout.splitlines()[-1] == "['step-00000001']"


KILLED_WRITER = Path(__file__).with_name("killed_writer.py")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, str]]]:
    """Of each story: the file operations before which the writer was killed, and what could be restored then."""
    command = [sys.executable, str(KILLED_WRITER), str(tmp_path_factory.mktemp("killed"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stories: dict[str, list[tuple[str, str]]] = json.loads(done.stdout)
    return stories


@pytest.mark.parametrize(
    ("story", "earlier", "saved"),
    [
        ("the first", "nothing", "new step 1"),
        ("one more", "earlier step 1", "new step 2"),
        ("one that replaces the earlier", "earlier step 1", "new step 2"),
        ("the same step again", "earlier step 2", "new step 2"),
        ("the only step again", "earlier step 2", "new step 2"),
    ],
)
def test_a_writer_killed_at_any_moment_leaves_the_earlier_checkpoint_or_the_whole_new_one(
    killed: dict[str, list[tuple[str, str]]], story: str, earlier: str, saved: str
) -> None:
    operations, restored = zip(*killed[story], strict=True)
    assert {"open", "os.mkdir", "os.rename", "os.truncate"} <= set(operations)
    assert set(restored) == {earlier, saved}
    commit = restored.index(saved)
    assert set(restored[commit:]) == {saved}, "once it is there it stays"
    assert operations[commit - 1] == "os.rename"
