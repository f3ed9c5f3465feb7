"""What a checkpoint's folder says of itself, and whether it is what was saved.

step-00000050.OWNER.partial/   every rank writes its part
step-00000050/                 the manifest is in it, and it has its name: now it exists
step-00000050.damaged-changed/ set aside, and never read again
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from foundation_core.errors import CheckpointError, DataError
from foundation_core.files import PARTIAL, read_json
from foundation_core.train.retention import Saved
from foundation_core.train.writer import hash_file

MANIFEST_FILE = "manifest.json"
MANIFEST_VERSION = 3
STATE_FILE = "rank-{rank:05d}.safetensors"
BEST_FILE = "best.safetensors"
"""The weights that were best on validation so far: of all ranks, written by rank 0."""
OUTPUTS_FILE = "example.f32"
"""What the model said of a small example, float32."""
HASH = "xxh3_128"
"""Files are compared with it to find damage, not malice: they hold numbers and no code, and whoever could change
one could change the manifest beside it. It costs the training a tenth of what sha256 would."""
DAMAGED = ".damaged-"
_REPLACED = ".replaced"
_FIELDS = ("step", "world", "identity", "state", "seconds", "loss", "ephemeral", "example", "files")
_STATE_NAME = re.compile(r"rank-\d+\.safetensors")
_NAME = re.compile(r"step-(\d{8,})")
FAULTS = ("whole", "missing", "truncated", "changed", "manifest", "outputs", "best")
"""What a checkpoint can be: whole, or the first thing that is wrong with it."""
_WORDS = {
    "missing": "{file} is not there",
    "truncated": "{file} does not have the size that was saved",
    "changed": "{file} is not what was saved",
    "manifest": "its manifest is no manifest",
    "outputs": "the model that was read from it does not say what the model that was saved said",
    "best": "the best weights so far are neither in it nor in the folder of the training",
}


class Fault(NamedTuple):
    """What is wrong with a checkpoint.

    Args:
        code: its place in `FAULTS`; 0 if nothing is.
        file: number of the file in the manifest, where it is about one.
    """

    code: int = 0
    file: int = 0

    @property
    def name(self) -> str:
        """The fault in a word."""
        return FAULTS[self.code]

    def said(self, body: Mapping[str, Any] | None) -> str:
        """The fault in words."""
        files = body["files"] if body else []
        return _WORDS[self.name].format(file=files[self.file]["file"] if files else MANIFEST_FILE)


def fault(name: str, file: int = 0) -> Fault:
    """The fault of that name."""
    return Fault(FAULTS.index(name), file)


def folder_name(step: int) -> str:
    """Of a checkpoint."""
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step of a finished checkpoint's folder; None for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def finished(folder: Path) -> dict[int, Path]:
    """The finished checkpoints of a folder by step, the oldest first."""
    steps = {step_of(path.parent.name): path.parent for path in folder.glob(f"step-*/{MANIFEST_FILE}")}
    return {step: steps[step] for step in sorted(step for step in steps if step is not None)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint.

    Raises:
        DataError: it is not there, no JSON, or lacks something.
        CheckpointError: it is of another version of this program.
    """
    path = folder / MANIFEST_FILE
    body = read_json(path)
    version = body.get("version") if isinstance(body, dict) else None
    if not isinstance(version, int):
        raise DataError(f"{path} has no version", fix=f"remove {folder}")
    if version != MANIFEST_VERSION:
        raise CheckpointError(
            f"{path} has version {version}",
            allowed=f"version {MANIFEST_VERSION}",
            fix=f"go on with the version of foundation-pipeline that wrote it, or remove {folder.parent} to train anew",
        )
    if missing := [name for name in _FIELDS if name not in body]:
        raise DataError(f"{path} has no {', '.join(missing)}", fix=f"remove {folder}")
    if state_files(body) != [STATE_FILE.format(rank=rank) for rank in range(body["world"])]:
        raise DataError(f"{path} lacks files of the {body['world']} workers that saved it", fix=f"remove {folder}")
    return dict(body)


def state_files(body: Mapping[str, Any]) -> list[str]:
    """The names of the files that hold the ranks' parts."""
    return sorted(entry["file"] for entry in body["files"] if _STATE_NAME.fullmatch(entry["file"]))


def saved_of(body: Mapping[str, Any]) -> Saved:
    """What the retention must know of a checkpoint."""
    return Saved(body["step"], body["seconds"], body["loss"], body["ephemeral"])


def find_fault(folder: Path, body: Mapping[str, Any], rank: int = 0, world: int = 1) -> Fault:
    """The first fault among a rank's share of the files; those of all ranks together are compared once each."""
    for number, entry in enumerate(body["files"]):
        if number % world == rank:
            path = folder / entry["file"]
            try:
                if not path.is_file():
                    return fault("missing", number)
                if path.stat().st_size != entry["bytes"]:
                    return fault("truncated", number)
                if hash_file(path) != entry[HASH]:
                    return fault("changed", number)
            except OSError:  # a sector that cannot be read holds nothing that was saved
                return fault("changed", number)
    return Fault()


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """A block in which nobody removes a checkpoint."""
    with suppress(FileNotFoundError), open(folder / MANIFEST_FILE, "rb") as manifest:
        fcntl.flock(manifest, fcntl.LOCK_SH)
        yield
        return
    yield


def replace(partial: Path, final: Path) -> None:
    """Give a whole checkpoint its name; one that had it steps aside, so that there is no moment without either."""
    aside = final.with_name(final.name + _REPLACED)
    if final.exists():
        os.replace(final, aside)
    os.replace(partial, final)
    if aside.exists():
        remove(aside)


def remove(folder: Path) -> bool:
    """Remove a checkpoint, the manifest first, so that half of it never counts. False: it stays, somebody reads it."""
    with suppress(FileNotFoundError), open(folder / MANIFEST_FILE, "r+b") as manifest:
        try:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        (folder / MANIFEST_FILE).unlink()
    shutil.rmtree(folder, ignore_errors=True)
    return True


def tidy(folder: Path) -> None:
    """Remove what killed writers left half done, and give a checkpoint its name back that was being replaced."""
    for aside in folder.glob(f"step-*{_REPLACED}"):
        final = aside.with_name(aside.name.removesuffix(_REPLACED))
        if (final / MANIFEST_FILE).exists():
            remove(aside)
        else:
            shutil.rmtree(final, ignore_errors=True)
            os.replace(aside, final)
    for left in folder.glob("step-*"):
        if left.name.endswith(PARTIAL) or (step_of(left.name) is not None and not (left / MANIFEST_FILE).exists()):
            shutil.rmtree(left, ignore_errors=True)


def set_aside(folder: Path, what: Fault) -> Path:
    """Rename a damaged checkpoint by its fault: it counts no more, and somebody may look at it; its new place."""
    for number in range(1, 1000):
        place = folder.with_name(f"{folder.name}{DAMAGED}{what.name}" + (f"-{number}" if number > 1 else ""))
        if not place.exists():
            os.replace(folder, place)
            return place
    raise CheckpointError(f"{folder} was damaged a thousand times", fix="look at the disk")
