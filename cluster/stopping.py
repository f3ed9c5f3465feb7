"""Ask a running stage, whoever started it, to save and leave; wait until it has."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cluster.launch import POLL_SECONDS, RayLauncher
from cluster.leases import is_held
from cluster.patience import Patience
from cluster.ray_jobs import live_jobs
from cluster.settings import Settings
from cluster.stop import StopFile
from foundation_core.errors import FoundationError, TransientError
from foundation_core.events import EVENTS_FILE, read_events


def job_of(folder: Path, settings: Settings) -> str:
    """The id of the Ray job that works in a stage's folder; empty if none does, or no cluster is configured."""
    if not settings.ray_dashboard:
        return ""
    prefix = f"{folder.parent.name}-{folder.name.rpartition('-')[2]}-"
    return next((name for name in live_jobs(settings.ray_dashboard) if name.startswith(prefix)), "")


def is_running(folder: Path, settings: Settings) -> bool:
    """Whether somebody works in a stage's folder: a command that follows it, or a Ray job that nobody follows."""
    return is_held(folder) or bool(job_of(folder, settings))


def stop_stage(folder: Path, settings: Settings) -> dict[str, Any]:
    """Ask a running stage to stop; its event `end`, once it and the command that follows it are through.

    Raises:
        TransientError: it died without a word, or was silent for too long; a Ray job is killed then.
    """
    offset, patience = (folder / EVENTS_FILE).stat().st_size, Patience.with_stage(folder)
    stop, end = StopFile(folder), dict[str, Any]()
    while not end:
        alive = is_running(folder, settings)  # before reading: what it said last is read after it was seen dead
        if not stop.requested():  # a stage that has just begun forgets what was asked of the one before it
            stop.request()
        for behind, event in read_events(folder, offset):
            offset, end = behind, event if event["kind"] == "end" else end
            patience.hear(event)
        if not end and not alive:
            raise TransientError(f"{folder.name} died without a word", fix="run it again: it continues")
        if not end and patience.is_over:
            raise _unwilling(folder, settings, patience.seconds)
        time.sleep(POLL_SECONDS)
    while is_held(folder) and not patience.is_over:  # the command closes the MLflow run
        time.sleep(POLL_SECONDS)
    return end


def _unwilling(folder: Path, settings: Settings, seconds: float) -> FoundationError:
    job_id = job_of(folder, settings)
    if job_id:
        RayLauncher(settings.ray_dashboard).kill(job_id)
        return TransientError(f"{job_id} was asked to stop, silent for {seconds:.0f} s, and killed")
    return TransientError(
        f"{folder.name} was asked to stop and silent for {seconds:.0f} s",
        fix="it stops as soon as it asks; `foundation logs` shows what it does",
    )
