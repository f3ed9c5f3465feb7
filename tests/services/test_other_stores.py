"""PostgreSQL for Prefect and MLflow, an S3 bucket for artifacts, by settings alone: real servers, a whole pipeline."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import mlflow
import psycopg2
import pytest

from cluster.embedded import free_port, wait_until_answers
from tests.support.workplace import Ended, Workplace

TOOLS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/none"))
pytestmark = [
    pytest.mark.services,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (TOOLS / "initdb").exists(), reason="PostgreSQL is not installed (Debian: apt-get install postgresql)"
    ),
]
BUCKET = "models"


@pytest.fixture
def postgres() -> Iterator[str]:
    """A PostgreSQL server with two empty databases, `prefect` and `mlflow`; USER@HOST:PORT."""
    # a folder of its own below /tmp: the server refuses to be root, and another user cannot enter pytest's folders
    folder = Path(
        subprocess.run([*_as_server(), "mktemp", "-d"], check=True, capture_output=True, text=True).stdout[:-1]
    )
    port = free_port()
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    run = [*_as_server(), str(TOOLS / "pg_ctl"), "-D", str(folder / "data"), "-w"]
    subprocess.run(
        [*_as_server(), str(TOOLS / "initdb"), "-D", str(folder / "data"), "-U", "me", "-A", "trust"], check=True
    )
    subprocess.run([*run, "-l", str(folder / "log"), "-o", options, "start"], check=True)
    try:
        for name in ("prefect", "mlflow"):
            subprocess.run([str(TOOLS / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "me", name], check=True)
        yield f"me@127.0.0.1:{port}"
    finally:
        subprocess.run([*run, "-m", "immediate", "stop"], check=True)
        subprocess.run([*_as_server(), "rm", "-r", str(folder)], check=True)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 API on loopback with an empty bucket; its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)])
    try:
        wait_until_answers(f"{address}/moto-api/", server, "the S3 API")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket=BUCKET)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def test_a_pipeline_keeps_everything_in_postgresql_and_s3(
    postgres: str, bucket: str, finished: tuple[Workplace, Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", f"postgresql+asyncpg://{postgres}/prefect")
    monkeypatch.setenv("FOUNDATION_MLFLOW_STORE", f"postgresql+psycopg2://{postgres}/mlflow")
    monkeypatch.setenv("FOUNDATION_MLFLOW_ARTIFACTS", f"s3://{BUCKET}/foundation")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", bucket)
    place = StoredElsewhere(tmp_path, finished[0].recipe)
    shutil.copytree(finished[0].home / "results" / "ingest", place.home / "results" / "ingest")
    try:
        up = place.run("up")
        assert up.status == 0, up.output
        ended = place.run("run", str(place.recipe))
        assert ended.status == 0, ended.output
        server = (place.home / "stack" / "mlflow.json").read_text().split('"')[3]
        mlflow.set_tracking_uri(server)
        assert mlflow.pyfunc.load_model("models:/miniature@candidate") is not None
    finally:
        down = place.run("down")
    assert down.status == 0, down.output

    objects = boto3.client("s3", endpoint_url=bucket).list_objects_v2(Bucket=BUCKET)["Contents"]
    names = {Path(entry["Key"]).name for entry in objects}
    assert {"weights.safetensors", "MLmodel", "loss.png"} <= names
    assert _count(postgres, "mlflow", "select count(*) from runs where status = 'FINISHED'") == 5  # ingest was there
    assert _count(postgres, "prefect", "select count(*) from flow_run where state_type = 'COMPLETED'") == 1
    assert not list(place.home.rglob("*.db")), "a database was made in the data folder all the same"
    assert not (place.home / "mlflow-artifacts").exists()


class StoredElsewhere(Workplace):
    """A workplace whose services are told by the tools' own variables where to keep their data."""

    @property
    def environment(self) -> dict[str, str]:
        """With the variable of Prefect's that other workplaces go without."""
        name = "PREFECT_API_DATABASE_CONNECTION_URL"
        return {**super().environment, name: os.environ[name]}


def _as_server() -> list[str]:
    """How to run a program as a user that PostgreSQL accepts."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


def _count(postgres: str, database: str, query: str) -> int:
    with psycopg2.connect(f"postgresql://{postgres}/{database}") as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])
