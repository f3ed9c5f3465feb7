"""The tags that tie things together: MLflow run, Prefect run, Ray job, git commit, and the two hashes of a stage."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from foundation_core.store import Result

ACTION_KEY = "foundation.action_key"
"""What the work is called before it is done: a run is found again by it."""
CONTENT_HASH = "foundation.content_hash"
"""What came out."""
STAGE = "foundation.stage"
PIPELINE = "foundation.pipeline"
PIPELINE_RUN = "foundation.pipeline_run"
SWEEP = "foundation.sweep"
"""The id of the sweep that a run belongs to: all its runs have it."""
SWEEP_POINT = "foundation.sweep_point"
"""Which of them: `lr=0.002`."""
PREFECT_RUN = "foundation.prefect_run"
RAY_JOB = "foundation.ray_job"
MLFLOW_RUN = "foundation.mlflow_run"
GIT_COMMIT = "mlflow.source.git.commit"
"""MLflow's own name for it, so that its pages show it."""

ID_TAGS = {
    "mlflow_run": MLFLOW_RUN,
    "prefect_run": PREFECT_RUN,
    "ray_job": RAY_JOB,
    "git_commit": GIT_COMMIT,
}
"""The tag of each id that a committed result carries in `Result.ids`."""


def run_tags(stage: str, key: str, ids: Mapping[str, str]) -> dict[str, str]:
    """The tags of a stage's run, known when it opens.

    Args:
        key: digest of the stage's action key.
        ids: any of `ID_TAGS`; empty values are left out.
    """
    return {STAGE: stage, ACTION_KEY: key, **{ID_TAGS[name]: value for name, value in ids.items() if value}}


def result_tags(results: Mapping[str, Result]) -> dict[str, str]:
    """The tags that lead back to every stage that something was made from.

    For each stage: `foundation.<stage>.action_key`, `.content_hash`, `.mlflow_run`, `.prefect_run`, `.ray_job` and
    `.git_commit`, the last four as far as the stage's result knows them.
    """
    tags: dict[str, str] = {}
    for result in results.values():
        prefix = f"foundation.{result.stage}."
        tags |= {prefix + "action_key": result.key, prefix + "content_hash": result.content}
        tags |= {prefix + name: result.ids[name] for name in ID_TAGS if result.ids.get(name)}
    return tags


def git_commit(folder: Path) -> str:
    """The commit of a checkout, with `+changes` behind it if files differ from it; empty outside of one."""
    head = _git(folder, "rev-parse", "HEAD")
    if not head:
        return ""
    return head + ("+changes" if _git(folder, "status", "--porcelain") else "")


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
