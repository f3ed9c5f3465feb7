"""Evaluation sets lie where sources lie, and are read as sources are: stores, packed files, dotted fields, several."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from foundation_core.data.copies.evaluation_sets import evaluation_texts, set_digests
from foundation_core.data.sources.modalities import ingest_key
from foundation_core.errors import ConfigError, DataError, FoundationError, SetupError
from foundation_core.specs import DecontaminationSpec, EvaluationSetSpec, IngestSpec
from tests.support.bucket import NAME
from tests.support.bucket import bucket as made_bucket

QUESTIONS, ANSWERS = ([f"{what} {number}" for number in range(30)] for what in ("question", "answer"))
ROWS = [{"data": {"q": question, "a": answer}} for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def one(path: Path | str, text_field: Any = "text", **fields: Any) -> EvaluationSetSpec:
    return EvaluationSetSpec.model_validate({"name": "farm", "path": str(path), "text_field": text_field, **fields})


def texts(path: Path | str, text_field: Any = "text", **fields: Any) -> list[str]:
    return list(evaluation_texts(one(path, text_field, **fields)))


def key(spec: EvaluationSetSpec) -> str:
    return ingest_key(IngestSpec(decontamination=DecontaminationSpec(sets=(spec,))), "content").digest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed table in a folder beside files of text, one of them packed."""
    folder = tmp_path_factory.mktemp("sets")
    (folder / "a-b").mkdir()
    (folder / "a").mkdir()
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(LINES))
    (folder / "a-b" / "plain.txt").write_text("plain text")
    (folder / "a" / "packed.txt.gz").write_bytes(gzip.compress(b"packed text"))
    return folder


@pytest.fixture(scope="module")
def bucket(folder: Path) -> Iterator[str]:
    """The address of the same files in a real S3 API on loopback."""
    with made_bucket() as made:
        for path in (path for path in folder.rglob("*") if path.is_file()):
            made.client.put_object(Bucket=NAME, Key=f"sets/{path.relative_to(folder)}", Body=path.read_bytes())
        yield f"{made.address}/sets"


def test_a_dotted_field_leads_into_an_object_and_a_column_of_that_very_name_comes_first(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    assert texts(tmp_path / "rows.jsonl", "data.q") == QUESTIONS
    (tmp_path / "flat.csv").write_text("data.q;other\nflat;1\n")  # by semicolons, as sources take them too
    assert texts(tmp_path / "flat.csv", "data.q") == ["flat"]


def test_each_of_several_fields_is_a_text_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    both = texts(tmp_path / "rows.jsonl", ["data.q", "data.a"])
    assert both == [*QUESTIONS, *ANSWERS]
    assert texts(tmp_path / "rows.jsonl", ["data.q"]) == QUESTIONS, "the negative control: one of them alone"
    with pytest.raises(ValidationError, match="text_field"):
        one(tmp_path / "rows.jsonl", [])


def test_a_set_in_a_store_is_the_set_on_this_machine(folder: Path, bucket: str) -> None:
    fields = ["data.q", "data.a"]
    assert texts(bucket, fields) == texts(folder, fields)
    assert {"packed text", "plain text", *QUESTIONS, *ANSWERS} == set(texts(bucket, fields))
    assert texts(f"{bucket}/rows.jsonl.gz", "data.q") == QUESTIONS
    assert texts(bucket, pattern="**/*.txt | **/*.txt.gz") == texts(folder, pattern="**/*.txt | **/*.txt.gz")


def test_a_moved_set_is_the_same_ingestion_and_an_edited_one_is_another(
    tmp_path: Path, folder: Path, bucket: str
) -> None:
    first = key(one(bucket, "data.q"))
    assert key(one(folder, "data.q")) == first
    (tmp_path / "other.csv").write_text("question\n" + "".join(f"{text}\n" for text in QUESTIONS))
    table = key(one(f"{bucket}/rows.jsonl.gz", "data.q"))
    assert key(one(tmp_path / "other.csv", "question")) == table != first
    assert key(one(f"{bucket}/rows.jsonl.gz", ["data.q", "data.a"])) != table
    (tmp_path / "other.csv").write_text("question\n" + "".join(f"{text} \n" for text in QUESTIONS))
    assert key(one(tmp_path / "other.csv", "question")) != table


@pytest.mark.parametrize(
    ("path", "field", "error", "words"),
    [
        ("ftp://host/a.jsonl", "text", ConfigError, "ftp:// is no store that can be read"),
        ("s3://key:hush@bucket/a.jsonl", "text", ConfigError, "holds a key"),
        ("{bucket}/nowhere.jsonl", "text", DataError, r"farm: s3://bucket/sets/nowhere\.jsonl is not there"),
        ("{bucket}/rows.jsonl.gz", "text", ConfigError, r"s3://bucket/sets/rows\.jsonl\.gz has no column 'text'"),
        ("{bucket}/rows.jsonl.gz", ["data.q", "nor.this"], ConfigError, r"has no column 'nor\.this'"),
        ("{bucket}/rows.jsonl.gz", "data.z", DataError, r"row 1 of s3://.*, 'data\.z': no text"),
    ],
)
def test_what_is_not_there_is_said_in_words(
    bucket: str, path: str, field: Any, error: type[FoundationError], words: str
) -> None:
    with pytest.raises(error, match=words) as refused:
        texts(path.format(bucket=bucket), field)
    assert "hush" not in str(refused.value)


def test_a_store_that_a_key_does_not_open_is_said_with_its_address(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            """Not for you."""
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Closed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(SetupError, match="s3://bucket/sets") as refused:
            set_digests(DecontaminationSpec(sets=(one(bucket),)))
        server.shutdown()
    assert refused.value.fix
