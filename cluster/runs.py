"""The stages of a data folder, by looking: which there are, how each went, which one somebody means.

A folder says it all: `result.json` (done), a lease that is held or a Ray job that lives (running), the last line of its
event log (stopped, failed); a log without an end whose owner is gone was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.job import STAGES
from cluster.leases import is_held
from foundation_core.errors import ConfigError
from foundation_core.events import EVENTS_FILE, last_event, read_events
from foundation_core.files import read_json
from foundation_core.store import IDS_FILE, RESULT_FILE, Result, load_result

LEAST_CHARACTERS = 4
"""Of a key: with fewer, what is meant for one folder would often mean two."""


@dataclass(frozen=True)
class StageRun:
    """What was done in a stage's folder, and how its latest attempt went.

    Args:
        state: done, running, stopped, failed or interrupted.
        started: when the latest attempt began, in seconds since the epoch; 0.0 if the log does not say.
        seconds: from there to the latest event.
        ids: of its MLflow run, Ray job and so on, as far as they are recorded.
        result: what it committed, if it did.
    """

    folder: Path
    state: str
    started: float
    seconds: float
    ids: dict[str, str]
    result: Result | None = None

    @property
    def stage(self) -> str:
        """ingest, pretrain and so on."""
        return self.folder.parent.name

    @property
    def key(self) -> str:
        """The first digits of the action key."""
        return self.folder.name.rpartition("-")[2]

    @property
    def recipe(self) -> str:
        """The name of the recipe that it was first run for."""
        return self.folder.name.rpartition("-")[0]


def stage_folders(results: Path) -> list[Path]:
    """The folders of all stages in which something was done, newest first."""
    folders = [path.parent for stage in STAGES for path in (results / stage).glob(f"*/{EVENTS_FILE}")]
    return sorted(folders, key=lambda folder: float(last_event(folder).get("time", 0.0)), reverse=True)


def look(folder: Path, is_alive: Callable[[str, str], bool] = lambda stage, key: False) -> StageRun:
    """What was done in a stage's folder.

    Args:
        is_alive: whether a cluster runs a job of (stage, first digits of the key), whoever started it.
    """
    first: dict[str, Any] = {}
    last: dict[str, Any] = {}
    for _, event in read_events(folder):
        first = event if event["kind"] == "start" or not first else first
        last = event
    started = float(first.get("time", 0.0))
    ids = read_json(folder / IDS_FILE) if (folder / IDS_FILE).exists() else {}
    result = load_result(folder) if (folder / RESULT_FILE).exists() else None
    if is_held(folder):
        state = "running"
    elif result is not None:
        state = "done"
    elif last.get("kind") == "end":  # its job may take another second to leave
        state = str(last["status"])
    else:
        state = "running" if is_alive(folder.parent.name, folder.name.rpartition("-")[2]) else "interrupted"
    return StageRun(folder, state, started, float(last.get("time", started)) - started, ids, result)


def matches(results: Path, name: str) -> list[Path]:
    """The folders that a person may mean.

    Args:
        name: of a stage (its newest folder), of a folder, the first digits of a key, or an id of an MLflow run, a
            Prefect run or a Ray job.
    """
    folders = stage_folders(results)
    newest = [folder for folder in folders if folder.parent.name == name]
    return newest[:1] or [folder for folder in folders if _is_meant(folder, name)]


def find(results: Path, name: str) -> Path:
    """The one folder that a person means by what `matches` takes.

    Raises:
        ConfigError: none, or more than one.
    """
    found = matches(results, name)
    if len(found) == 1:
        return found[0]
    some = ", ".join(f"{folder.parent.name} {folder.name}" for folder in (found or stage_folders(results))[:8])
    raise ConfigError(
        f"{name!r} is {len(found) or 'no'} run{'s' if len(found) > 1 else ''} of {results.parent}",
        allowed=f"{', '.join(STAGES)}, or {LEAST_CHARACTERS} or more digits of a key; there are: {some or 'none'}",
        fix="`foundation runs` lists them",
    )


def _is_meant(folder: Path, name: str) -> bool:
    if len(name) < LEAST_CHARACTERS:
        return False
    key = folder.name.rpartition("-")[2]
    job = name.rpartition("-")[0]  # STAGE-KEY-NUMBER
    if name == folder.name or key.startswith(name) or job == f"{folder.parent.name}-{key}":
        return True
    ids = read_json(folder / IDS_FILE) if (folder / IDS_FILE).exists() else {}
    return any(str(value).startswith(name) for kind, value in ids.items() if kind != "git_commit")
