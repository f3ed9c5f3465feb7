"""A checkpoint is whole or it is not there, and it says what it belongs to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from foundation_core.errors import CheckpointError
from foundation_core.files import PARTIAL, read_json, sha256_file, write_json
from foundation_core.specs import OptimizerSpec
from foundation_core.train.checkpoint import MANIFEST_FILE, Checkpoints, verify
from foundation_core.train.engine import EngineRequest, TorchEngine

IDENTITY = {"corpus": "c" * 64, "order": "0" * 64}


class TwoRanks(TorchEngine):
    """The torch engine as it would look to a checkpoint if a second rank stood beside it."""

    world = 2


def _engine(kind: type[TorchEngine] = TorchEngine, fill: float = 0.0) -> TorchEngine:
    module = nn.Linear(4, 3)
    nn.init.constant_(module.weight, fill)
    return kind(module, EngineRequest(OptimizerSpec()))


def _checkpoints(folder: Path, engine: TorchEngine | None = None, keep: int = 2, **identity: str) -> Checkpoints:
    return Checkpoints(folder, engine or _engine(), {**IDENTITY, **identity}, keep)


def _newest(folder: Path) -> Path:
    return max(path for path in folder.iterdir() if path.suffix != PARTIAL)


def test_what_was_saved_comes_back_with_the_loops_state(tmp_path: Path) -> None:
    _checkpoints(tmp_path, _engine(fill=2.5)).save(7, {"labels": 12, "best_loss": None})
    engine = _engine()
    assert _checkpoints(tmp_path, engine).restore() == (7, {"labels": 12, "best_loss": None})
    assert torch.equal(engine.weights()["weight"], torch.full((3, 4), 2.5))


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path: Path) -> None:
    assert _checkpoints(tmp_path / "nowhere").restore() is None


def test_the_newest_is_restored_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = _checkpoints(tmp_path, keep=2)
    for step in (9, 10, 99, 100):
        checkpoints.save(step, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000099", "step-00000100"]
    assert checkpoints.restore() == (100, {})


def test_a_step_may_be_saved_again(tmp_path: Path) -> None:
    checkpoints = _checkpoints(tmp_path)
    checkpoints.save(3, {"labels": 1})
    checkpoints.save(3, {"labels": 2})
    assert checkpoints.restore() == (3, {"labels": 2})


def _edit(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("damage", [_edit, _truncate, Path.unlink])
def test_a_damaged_file_is_named_with_both_digests(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    checkpoints = _checkpoints(tmp_path)
    checkpoints.save(1, {})
    checkpoints.save(2, {})
    path = _newest(tmp_path) / "engine.pt"
    saved = sha256_file(path)
    damage(path)
    found = sha256_file(path) if path.exists() else "no file"
    with pytest.raises(CheckpointError) as caught:
        checkpoints.restore()
    assert str(path) in caught.value.found
    assert f"sha256 {found}" in caught.value.found
    assert saved in caught.value.allowed
    shutil.rmtree(_newest(tmp_path))  # what the message says to do
    assert checkpoints.restore() == (1, {})


def test_a_damaged_file_is_not_even_opened(tmp_path: Path) -> None:
    """Checkpoints are pickles in part: what was not written by us must not be loaded."""

    class Untouched(TorchEngine):
        def load(self, folder: Path) -> None:
            raise AssertionError("it was loaded")

    _checkpoints(tmp_path).save(1, {})
    _edit(_newest(tmp_path) / "engine.pt")
    with pytest.raises(CheckpointError):
        _checkpoints(tmp_path, _engine(Untouched)).restore()


def _rewrite(folder: Path, **fields: Any) -> None:
    path = _newest(folder) / MANIFEST_FILE
    write_json(path, {**read_json(path), **fields})


def test_a_manifest_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    _checkpoints(tmp_path).save(1, {})
    _rewrite(tmp_path, version=2)
    with pytest.raises(CheckpointError, match=r"manifest\.json has version 2\n  Allowed: versions up to 1"):
        _checkpoints(tmp_path).restore()


def test_a_manifest_that_is_not_json_is_named_as_a_checkpoints_fault(tmp_path: Path) -> None:
    _checkpoints(tmp_path).save(1, {})
    _truncate(_newest(tmp_path) / MANIFEST_FILE)
    _truncate(_newest(tmp_path) / MANIFEST_FILE)
    with pytest.raises(CheckpointError, match=r"(?s)manifest\.json is not JSON.*To do: remove .*step-00000001"):
        _checkpoints(tmp_path).restore()


def test_another_number_of_workers_is_refused_with_both_numbers(tmp_path: Path) -> None:
    _checkpoints(tmp_path, _engine(TwoRanks)).save(1, {})
    with pytest.raises(CheckpointError, match=r"(?s)saved by 2 workers, and 1 want.*pretrain\.workers=2"):
        _checkpoints(tmp_path).restore()


@pytest.mark.parametrize("name", ["corpus", "order"])
def test_a_checkpoint_of_another_corpus_or_order_is_refused_by_name(tmp_path: Path, name: str) -> None:
    _checkpoints(tmp_path).save(1, {})
    with pytest.raises(CheckpointError, match=f"belongs to another training: its {name} is {IDENTITY[name]}"):
        _checkpoints(tmp_path, **{name: "f" * 64}).restore()


def test_a_checkpoint_of_another_engine_is_refused(tmp_path: Path) -> None:
    _checkpoints(tmp_path).save(1, {})
    (_newest(tmp_path) / "engine.pt").rename(_newest(tmp_path) / "other.pt")
    entry = read_json(_newest(tmp_path) / MANIFEST_FILE)["files"][0]
    _rewrite(tmp_path, files=[{**entry, "file": "other.pt"}])
    with pytest.raises(CheckpointError, match="not saved by the torch engine"):
        _checkpoints(tmp_path).restore()


def test_the_manifest_lists_every_file_of_the_checkpoint(tmp_path: Path) -> None:
    class ManyFiles(TorchEngine):
        def save(self, folder: Path) -> None:
            super().save(folder)
            (folder / "deep").mkdir()
            (folder / "deep" / "part").write_bytes(b"part")

    _checkpoints(tmp_path, _engine(ManyFiles)).save(1, {})
    body = verify(_newest(tmp_path))
    assert next((entry["file"], entry["bytes"]) for entry in body["files"]) == ("deep/part", 4)
    (_newest(tmp_path) / "deep" / "part").write_bytes(b"trap")
    with pytest.raises(CheckpointError, match="deep/part is not what was saved"):
        verify(_newest(tmp_path))


def test_what_a_killed_writer_left_is_removed_when_training_goes_on(tmp_path: Path) -> None:
    left = tmp_path / f"step-00000005{PARTIAL}"
    left.mkdir()
    (left / "engine.pt").write_bytes(b"half")
    assert _checkpoints(tmp_path).restore() is None
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_cannot_write_is_called_a_full_disk_only_when_it_is_one(tmp_path: Path) -> None:
    class Forbidden(TorchEngine):
        def save(self, folder: Path) -> None:
            raise PermissionError(13, "Permission denied")

    with pytest.raises(PermissionError):
        _checkpoints(tmp_path, _engine(Forbidden)).save(1, {})


FULL_DISK = """
import sys
from pathlib import Path
from torch import nn
from foundation_core.errors import SetupError
from foundation_core.specs import OptimizerSpec
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import EngineRequest, TorchEngine
folder = Path(sys.argv[1])
Checkpoints(folder, TorchEngine(nn.Linear(100, 100), EngineRequest(OptimizerSpec())), {}, 2).save(1, {})
try:
    Checkpoints(folder, TorchEngine(nn.Linear(1000, 1000), EngineRequest(OptimizerSpec())), {}, 2).save(2, {})
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
        ("the first", "nothing", "step 1"),
        ("one more", "step 1", "step 2"),
        ("one that replaces the earlier", "step 1", "step 2"),
    ],
)
def test_a_writer_killed_at_any_moment_leaves_the_earlier_checkpoint_or_the_whole_new_one(
    killed: dict[str, list[tuple[str, str]]], story: str, earlier: str, saved: str
) -> None:
    operations, restored = zip(*killed[story], strict=True)
    assert {"open", "os.mkdir", "os.rename"} <= set(operations)
    commit = operations.index("os.rename", operations.index("os.rename") + 1)  # the first is the manifest's
    assert set(restored[: commit + 1]) == {earlier}
    assert set(restored[commit + 1 :]) == {saved}


def test_a_writer_killed_while_it_saves_a_step_again_leaves_that_step_or_the_one_before(
    killed: dict[str, list[tuple[str, str]]],
) -> None:
    restored = [found for _, found in killed["the same step again"]]
    assert set(restored) == {"step 1", "step 2"}
    assert restored[0] == restored[-1] == "step 2"
