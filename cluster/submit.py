"""A whole recipe as one Ray job: sent through the Jobs API, followed by its log, stopped if somebody wants that."""

from __future__ import annotations

import asyncio
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.ray_jobs import connect, is_here, reaching
from cluster.settings import Settings
from cluster.upload import RECIPE_FILE, SOURCE, working_folder
from foundation_core.errors import FoundationError, Stopped, TransientError
from foundation_core.tracking.lineage import git_commit

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PIPELINE_PREFIX = "pipeline-"
"""What the ids of these jobs begin with; those of stages begin with the stage."""
LOOK_SECONDS = 0.5


class PipelineJobs:
    """The pipelines that run as jobs of one cluster.

    Args:
        address: of the dashboard.

    Raises:
        FoundationError: no cluster answers there, or not to this token.
    """

    def __init__(self, address: str) -> None:
        self._address, self._client = address, connect(address)

    def submit(
        self, recipe: Path, words: Sequence[str], name: str, settings: Settings, *, installed: bool = False
    ) -> str:
        """Send a recipe; the id of its job.

        Args:
            words: `--dotted.field value`, any number of them.
            name: of the recipe, for the id.
            settings: of the job: its data folder, which every node must see under that path, and its MLflow.
            installed: the cluster has this project installed; only the recipe is sent.
        """
        environment = {
            "FOUNDATION_HOME": str(settings.home),
            "FOUNDATION_MLFLOW_URI": settings.tracking_uri,
            "FOUNDATION_GIT_COMMIT": git_commit(SOURCE),
            "PYTHONSAFEPATH": "1",
        }
        with working_folder(recipe, installed=installed) as folder, reaching(self._address):
            return str(
                self._client.submit_job(
                    entrypoint=shlex.join([self._python(), "-m", "cluster.job", RECIPE_FILE, *words]),
                    submission_id=f"{PIPELINE_PREFIX}{name}-{secrets.token_hex(4)}",
                    runtime_env={
                        "working_dir": str(folder),
                        "env_vars": {key: value for key, value in environment.items() if value},
                    },
                )
            )

    def follow(self, job_id: str, write: Callable[[str], None]) -> int:
        """Write a job's log as it grows, until the job has ended; its exit status.

        Raises:
            TransientError: the log cannot be read any more; the job may go on.
        """
        import aiohttp

        try:
            with reaching(self._address):
                asyncio.run(_tail(self._client, job_id, write))
        except aiohttp.ClientError as error:
            raise TransientError(f"the log of {job_id} broke off: {error}", fix=f"foundation logs {job_id}") from error
        return self.wait(job_id)

    def stop(self, job_id: str) -> None:
        """Ask a job to save and leave; Ray kills it some time later (RAY_JOB_STOP_WAIT_TIME_S of the cluster)."""
        with reaching(self._address):
            self._client.stop_job(job_id)

    def wait(self, job_id: str) -> int:
        """The exit status of a job, once it has ended.

        Raises:
            FoundationError: it never began, with Ray's words.
        """
        from ray.job_submission import JobStatus

        with reaching(self._address):
            while not (job := self._client.get_job_info(job_id)).status.is_terminal():
                time.sleep(LOOK_SECONDS)
        if job.status == JobStatus.STOPPED:
            return Stopped.exit_code
        if job.driver_exit_code is None:
            raise FoundationError(f"{job_id} did not begin: {job.message}")
        return int(job.driver_exit_code) if job.driver_exit_code >= 0 else 1

    def log(self, job_id: str) -> str:
        """What a job printed until now.

        Raises:
            FoundationError: the cluster knows no such job.
        """
        with reaching(self._address):
            return str(self._client.get_job_logs(job_id))

    def _python(self) -> str:
        """The interpreter of the job: this very one on this machine; elsewhere what that machine calls python."""
        return sys.executable if is_here(self._address) else "python"


async def _tail(client: JobSubmissionClient, job_id: str, write: Callable[[str], None]) -> None:
    async for text in client.tail_job_logs(job_id):
        write(text)
