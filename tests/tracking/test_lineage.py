"""The tags that lead from one thing to the next."""

from __future__ import annotations

import subprocess
from pathlib import Path

from foundation_core.store import Result
from foundation_core.tracking.lineage import ACTION_KEY, GIT_COMMIT, RAY_JOB, STAGE, git_commit, result_tags, run_tags


def test_a_run_carries_its_key_and_the_ids_that_are_known() -> None:
    tags = run_tags("pretrain", "abc", {"ray_job": "pretrain-abc-1", "prefect_run": "", "git_commit": "deadbeef"})
    assert tags == {STAGE: "pretrain", ACTION_KEY: "abc", RAY_JOB: "pretrain-abc-1", GIT_COMMIT: "deadbeef"}


def test_every_stage_behind_a_model_is_named_with_both_hashes_and_its_run() -> None:
    results = {
        "corpus": Result("ingest", "k1", "c1", Path(), {}, 0.0, ids={"mlflow_run": "r1"}),
        "trunk": Result("pretrain", "k2", "c2", Path(), {}, 0.0, ids={"mlflow_run": "r2", "ray_job": "j2"}),
    }
    assert result_tags(results) == {
        "foundation.ingest.action_key": "k1",
        "foundation.ingest.content_hash": "c1",
        "foundation.ingest.mlflow_run": "r1",
        "foundation.pretrain.action_key": "k2",
        "foundation.pretrain.content_hash": "c2",
        "foundation.pretrain.mlflow_run": "r2",
        "foundation.pretrain.ray_job": "j2",
    }


def test_a_checkout_with_changes_says_so_and_another_folder_has_no_commit(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == ""
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.com"]
    for arguments in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True)
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "new").touch()
    assert git_commit(tmp_path) == f"{commit}+changes"
