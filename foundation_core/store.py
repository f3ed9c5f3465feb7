"""Results on disk. A stage's folder is a result once `result.json` is in it, and is nothing before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from foundation_core.errors import DataError
from foundation_core.files import read_json, write_json
from foundation_core.identity import ActionKey, content_hash

RESULT_FILE = "result.json"
IDS_FILE = "ids.json"
UNITS_FOLDER = "units"
"""Folder of the units of work of all ingestions, beside the stages; of one that is alone, in its own."""
UNITS_FILE = "units.json"
"""Beside a result: the read units that it was made of, by their names below that folder."""
RESULT_VERSION = 1


@dataclass(frozen=True)
class StageResult:
    """What a stage function returns.

    Args:
        outputs: sha256 of each output that later stages read, by path below the stage's folder.
        summary: figures and facts for people and for the stages that follow (JSON values).
        seconds: the stage's own work, imports and process starts excluded.
    """

    outputs: Mapping[str, str]
    summary: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Result:
    """A committed stage: what `result.json` holds, and where it is."""

    stage: str
    key: str
    content: str
    folder: Path
    summary: Mapping[str, Any]
    seconds: float
    outputs: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)


class Store:
    """All stage folders below one root: `<root>/<stage>/<name>-<key>`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str, key: ActionKey) -> Path:
        """Where the work of a key is or will be; a readable name, told apart by the key alone."""
        stage_folder = self.root / key.stage
        found = sorted(stage_folder.glob(f"*-{key.short}"))
        return found[0] if found else stage_folder / f"{name}-{key.short}"

    def find(self, key: ActionKey) -> Result | None:
        """The committed result of a key, or None."""
        for path in sorted((self.root / key.stage).glob(f"*-{key.short}/{RESULT_FILE}")):
            result = load_result(path.parent)
            if result.key == key.digest:
                return result
        return None

    def history(self, stage: str) -> list[Result]:
        """Every committed result of a stage, newest first."""
        paths = (self.root / stage).glob(f"*/{RESULT_FILE}")
        return [load_result(path.parent) for path in sorted(paths, key=lambda p: p.stat().st_mtime, reverse=True)]


def commit_result(folder: Path, key: ActionKey, result: StageResult) -> Result:
    """Write `result.json`: from here on the stage exists."""
    content = content_hash(result.outputs)
    done = Result(
        stage=key.stage, key=key.digest, content=content, folder=folder, summary=result.summary,
        seconds=result.seconds, outputs=result.outputs, parts=key.parts,
    )  # fmt: skip
    body = asdict(done)
    del body["folder"], body["ids"]  # a folder may move, and ids are recorded by whoever launched the work
    write_json(folder / RESULT_FILE, {"version": RESULT_VERSION, **body})
    return done


def record_ids(folder: Path, ids: Mapping[str, str]) -> None:
    """Write what ties a result to its MLflow run, Prefect run, Ray job and git commit; the launcher's last act."""
    write_json(folder / IDS_FILE, dict(ids))


def load_result(folder: Path) -> Result:
    """The committed result of a folder.

    Raises:
        DataError: there is none, or it was written by a newer version.
    """
    body = read_json(folder / RESULT_FILE)
    version = body.pop("version")
    if version > RESULT_VERSION:
        raise DataError(
            f"{folder / RESULT_FILE} has version {version}",
            allowed=f"versions up to {RESULT_VERSION}",
            fix="upgrade foundation-pipeline, or name another data folder with FOUNDATION_HOME",
        )
    ids = read_json(folder / IDS_FILE) if (folder / IDS_FILE).exists() else {}
    return Result(folder=folder, ids=ids, **body)
