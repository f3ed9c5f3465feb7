"""A job runs one stage and says in its event log how that went, whatever happened."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.job import JOB_FILE, Job, run
from cluster.stop import StopFile
from foundation_core.errors import ConfigError, DataError, FoundationError, Stopped
from foundation_core.events import read_events
from foundation_core.files import read_json, write_json
from foundation_core.identity import action_key
from foundation_core.specs import EvaluateSpec
from foundation_core.store import RESULT_FILE, StageResult, commit_result, load_result
from tests.cluster.conftest import Jobs

NOWHERE = {"source": {"kind": "folder", "path": "/nowhere/at/all"}}
UNFILLABLE = {"tokenizer": {"vocabulary": 60_000}}
NOTHING_LEFT = {"filters": [{"measure": "characters", "at_least": 10**9}]}


def _last_event(job: Job) -> dict[str, Any]:
    *_, (_, event) = read_events(Path(job.folder))
    return event


def _error(job: Job) -> FoundationError:
    event = _last_event(job)
    assert (event["kind"], event["status"]) == ("end", "failed")
    return FoundationError.from_json(event["error"])


def test_a_job_commits_a_result_under_its_key_and_says_done_last(ingest_job: Jobs) -> None:
    job = ingest_job()
    path = job.write()
    assert Job.read(path) == job
    done = subprocess.run([sys.executable, "-m", "cluster.job", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert _last_event(job) == {"time": _last_event(job)["time"], "kind": "end", "status": "done"}
    result = load_result(Path(job.folder))
    assert (result.stage, result.key) == ("ingest", job.key["digest"])
    kinds = {event["kind"] for _, event in read_events(Path(job.folder))}
    assert {"phase", "progress", "metrics", "end"} <= kinds


def test_a_job_that_comes_when_another_was_through_says_done_and_does_nothing(ingest_job: Jobs) -> None:
    job = ingest_job()
    assert run(job) == 0
    before = {path: path.stat().st_mtime_ns for path in Path(job.folder).rglob("*") if path.name != "events.jsonl"}
    kinds = [event["kind"] for _, event in read_events(Path(job.folder))]
    assert run(job) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [event["kind"] for _, event in read_events(Path(job.folder))] == [*kinds, "end"]


def test_an_error_of_a_persons_crosses_as_the_same_class_with_exit_2_and_no_traceback(ingest_job: Jobs) -> None:
    job = ingest_job(**NOWHERE)
    done = subprocess.run([sys.executable, "-m", "cluster.job", str(job.write())], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "")
    error = _error(job)
    assert isinstance(error, DataError)
    assert "/nowhere/at/all is not there" in error.found
    assert error.fix


@pytest.mark.parametrize(
    ("ingest", "kind", "words"),
    [
        (UNFILLABLE, ConfigError, "tokenizer.vocabulary=60000 cannot be filled"),
        (NOTHING_LEFT, DataError, "'characters >= 1e+09' dropped"),
    ],
)
def test_a_stage_that_cannot_end_well_says_why(
    ingest_job: Jobs, ingest: dict[str, Any], kind: type[FoundationError], words: str
) -> None:
    job = ingest_job(**ingest)
    assert run(job) == 2
    error = _error(job)
    assert isinstance(error, kind)
    assert words in error.found
    assert not (Path(job.folder) / RESULT_FILE).exists()


def test_a_fault_of_ours_becomes_a_readable_failure(ingest_job: Jobs, capfd: pytest.CaptureFixture[str]) -> None:
    job = ingest_job()
    Path(job.folder).mkdir(parents=True)
    (Path(job.folder).parents[1] / "units").write_text("a file where a folder is due")
    assert run(job) == 1
    error = _error(job)
    assert type(error) is FoundationError
    assert "Error: " in error.found
    assert ".py:" in error.found
    assert "a fault of the program" in error.fix
    assert "Traceback" in capfd.readouterr().err  # for the log of the process


def test_an_input_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    key = action_key("evaluate", EvaluateSpec(), {})
    commit_result(tmp_path / "corpus", key, StageResult({}, {}, 0.0))
    write_json(tmp_path / "corpus" / RESULT_FILE, {**read_json(tmp_path / "corpus" / RESULT_FILE), "version": 99})
    job = Job(
        "evaluate", EvaluateSpec().model_dump(mode="json"), {"corpus": str(tmp_path / "corpus")},
        str(tmp_path / "evaluate"), {"digest": key.digest, "parts": dict(key.parts)},
    )  # fmt: skip
    assert run(job) == 2
    assert "has version 99" in _error(job).found


def test_a_stop_request_ends_the_job_as_stopped(ingest_job: Jobs) -> None:
    job = ingest_job()
    Path(job.folder).mkdir(parents=True)
    StopFile(Path(job.folder)).request()
    assert run(job) == 130
    event = _last_event(job)
    assert (event["kind"], event["status"]) == ("end", "stopped")
    assert isinstance(FoundationError.from_json(event["error"]), Stopped)


def test_what_an_interrupted_job_left_half_written_is_removed(ingest_job: Jobs) -> None:
    job = ingest_job(**NOWHERE)
    left = Path(job.folder) / "documents" / "shard-00000.arrow.partial"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    run(job)
    assert not left.exists()


def test_a_job_file_that_is_no_job_says_so(tmp_path: Path) -> None:
    for text in ("{}", "{half", None):
        path = tmp_path / JOB_FILE
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        done = subprocess.run([sys.executable, "-m", "cluster.job", str(path)], capture_output=True, text=True)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert str(path) in done.stderr


def test_a_job_survives_the_way_through_its_file(ingest_job: Jobs) -> None:
    job = dataclasses.replace(ingest_job(), environment={"A": "b"}, inputs={"corpus": "/somewhere"})
    assert Job.read(job.write()) == job
    assert job.action_key().digest == job.key["digest"]
    assert job.typed_spec().model_dump(mode="json") == job.spec
