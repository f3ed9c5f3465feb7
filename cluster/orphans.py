"""Who owns what runs: a flow run holds a lease below `runs/`, a stage one in its folder; work without a holder ends.

A Ray job outlives the process that follows it, so that whoever starts the same recipe again finds it at work. When
nobody does, it is told to save and stop.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cluster.leases import LEASE_FILE, is_held, lease
from cluster.ray_jobs import live_jobs
from cluster.settings import Settings
from cluster.stopping import stop_stage
from foundation_core.errors import TransientError

MODULE = "-m cluster.job "


class OrphanedJob(NamedTuple):
    """A live Ray job that nobody follows."""

    job_id: str
    folder: Path


def run_folder(settings: Settings, run_id: str) -> Path:
    """Where the owner of a flow run says that it lives."""
    return settings.home / "runs" / run_id


@contextmanager
def owning(settings: Settings, run_id: str) -> Iterator[None]:
    """Say for the block that this process does the work of a flow run."""
    folder = run_folder(settings, run_id)
    with lease(folder):
        yield
    shutil.rmtree(folder, ignore_errors=True)


def orphaned_jobs(settings: Settings) -> list[OrphanedJob]:
    """Every live job of this data folder whose stage nobody holds."""
    found = []
    for job_id, entrypoint in live_jobs(settings.ray_dashboard).items():
        folder = Path(entrypoint.partition(MODULE)[2].strip()).parent
        if folder.is_relative_to(settings.results) and not is_held(folder):
            found.append(OrphanedJob(job_id, folder))
    return found


def end_job(settings: Settings, job: OrphanedJob) -> None:
    """Ask a job to save and leave; it is killed if it does not, and gone if it had left already."""
    with suppress(TransientError):
        stop_stage(job.folder, settings)


def release_stale_leases(settings: Settings) -> int:
    """Remove the leases whose owners are gone; how many there were."""
    stale = [path for path in settings.results.glob(f"*/*/{LEASE_FILE}") if not is_held(path.parent)]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def dead_runs(settings: Settings) -> list[str]:
    """The flow runs of this data folder whose owner is gone and has left its mark."""
    return [folder.name for folder in (settings.home / "runs").glob("*") if not is_held(folder)]


def forget_run(settings: Settings, run_id: str) -> None:
    """Remove the mark that a dead owner left."""
    shutil.rmtree(run_folder(settings, run_id), ignore_errors=True)
