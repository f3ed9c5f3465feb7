"""Sources in stores give what the same files give on this machine, and no key gets into an address."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from foundation_core.data.sources.digests import source_content
from foundation_core.data.sources.documents import open_source
from foundation_core.data.sources.modalities import Reader, Text, read_files
from foundation_core.data.stores.places import Remote, located
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import IngestSpec, SourceSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from tests.support.bucket import NAME
from tests.support.bucket import bucket as made_bucket
from tests.support.ingestion import ProcessPool
from tests.support.malformed import tarred
from tests.support.stack import until
from tests.support.written import zipped

TEXT = Reader(Text(IngestSpec()), captioned=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts in folders, one name with a blank, and a packed table."""
    folder = tmp_path_factory.mktemp("files")
    for number in range(40):
        path = folder / ("one" if number % 2 else "an other") / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"the text of number {number}\n" * (1 + number))
    rows = "".join(json.dumps({"text": f"row {number}, " * 9}) + "\n" for number in range(200))
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    members = {f"{number}/a.txt": f"letter {number}, ".encode() * 99 for number in range(20)}
    (folder / "letters.zip").write_bytes(zipped(members))
    (folder / "page.html").write_text('<p>a page with a <a href="letters.zip">link</a></p>')
    (folder / "letters.tgz").write_bytes(gzip.compress(tarred(members)))
    return folder


@pytest.fixture(scope="module")
def bucket(files: Path) -> Iterator[str]:
    """The address of the same files in a real S3 API on loopback."""
    with made_bucket() as made:
        for path in files.rglob("*"):
            if path.is_file():
                made.client.put_object(Bucket=NAME, Key=f"in/{path.relative_to(files)}", Body=path.read_bytes())
        yield f"{made.address}/in"


@pytest.fixture(scope="module")
def google(files: Path) -> Iterator[str]:
    """The address of the same files in the API of Google's store on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # a process of its own: pyarrow waits for this store with Python's lock held, which a thread would need to answer
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}"]
    server = subprocess.Popen([*command, "--in-memory", "--default-bucket=bucket"], stdout=subprocess.DEVNULL)
    until(lambda: _answers(port), time.monotonic() + 60, "the store answers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        for path in files.rglob("*"):
            if path.is_file():
                name = quote(f"in/{path.relative_to(files)}")
                address = f"http://127.0.0.1:{port}/upload/storage/v1/b/bucket/o?uploadType=media&name={name}"
                urlopen(Request(address, path.read_bytes(), {"Content-Type": "text/plain"}, method="POST")).close()
        yield "gs://bucket/in"
    server.terminate()
    server.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def web(files: Path) -> Iterator[str]:
    """The address of the same files on a web server on loopback, which sends any range of one."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            """A range of a file, as it lies; what else is asked for, as always."""
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if asked is None:
                super().do_GET()
                return
            data = Path(self.translate_path(self.path)).read_bytes()
            part = data[int(asked[1]) : int(asked[2]) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(files))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("store", ["bucket", "google"])
def test_a_folder_in_a_bucket_is_the_same_source_as_on_this_machine(
    files: Path, store: str, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue(store)
    there, here = (SourceSpec(kind="folder", path=path, pattern="**/*.txt") for path in (address, str(files)))
    remote, local = open_source(there).files(), open_source(here).files()
    assert [(file.document, file.bytes, file.group) for file in remote] == [
        (file.document, file.bytes, file.group) for file in local
    ]
    assert source_content(remote) == source_content(local)
    assert read_files(remote, TEXT)[0].equals(read_files(local, TEXT)[0])


def test_archives_in_a_bucket_are_read_in_parts(files: Path, bucket: str) -> None:
    there, here = (SourceSpec(kind="folder", path=path, pattern="letters.*") for path in (bucket, str(files)))
    remote, local = open_source(there).files(), open_source(here).files()
    assert source_content(remote) == source_content(local)
    parts = [part for archive in remote for part in archive.parts(5000)]
    assert len(parts) == 8
    documents, quarantined = read_files(reversed(parts), TEXT)
    assert (len(documents), len(quarantined)) == (40, 0)
    assert documents.sort_by("document").equals(read_files(local, TEXT)[0].sort_by("document"))


@pytest.mark.parametrize("store", ["bucket", "google", "web"])
def test_a_packed_table_in_a_store_is_read_in_parts(files: Path, store: str, request: pytest.FixtureRequest) -> None:
    address = request.getfixturevalue(store)
    there, here = (SourceSpec(kind="table", path=f"{path}/rows.jsonl.gz") for path in (address, files))
    (remote,), (local,) = open_source(there).files(), open_source(here).files()
    parts = list(remote.parts(2000))
    assert len(parts) > 3
    assert remote.digest() == local.digest()
    assert read_files(parts, TEXT)[0].equals(read_files([local], TEXT)[0])


@pytest.mark.parametrize("store", ["bucket", "google", "web"])
@pytest.mark.parametrize("name", ["letters.zip", "letters.tgz", "one/1.txt", "page.html"])
def test_one_file_in_a_store_is_the_same_source_as_on_this_machine(
    files: Path, store: str, name: str, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue(store)
    there, here = (SourceSpec(kind="folder", path=f"{path}/{name}") for path in (address, files))
    (remote,), (local,) = open_source(there).files(), open_source(here).files()
    assert remote.document == local.document == f"folder/{Path(name).name}"
    assert remote.digest() == local.digest()
    documents, quarantined = read_files(remote.parts(5000), TEXT)
    assert (len(documents), len(quarantined)) == (20 if name.startswith("letters") else 1, 0)
    assert documents.equals(read_files([local], TEXT)[0])
    with pytest.raises(DataError, match="is not there"):
        open_source(SourceSpec(kind="folder", path=f"{address}/no{Path(name).name}"))


def test_worker_processes_read_a_bucket(
    tmp_path: Path, files: Path, bucket: str, serial_context: Callable[..., Context]
) -> None:
    made = []
    for name, path, pool in (("there", bucket, ProcessPool()), ("here", str(files), None)):
        source = {"kind": "folder", "path": path, "pattern": "**/*.txt"}
        spec = IngestSpec.model_validate({"source": source, "tokenizer": {"vocabulary": 270}, "unit_bytes": 4096})
        context = serial_context(tmp_path / name, pool=pool) if pool else serial_context(tmp_path / name)
        made.append(ingest(spec, {}, context).outputs)
    assert made[0] == made[1]


def test_what_is_not_there_is_said_without_a_traceback(bucket: str) -> None:
    with pytest.raises(DataError, match="is not there"):
        open_source(SourceSpec(kind="folder", path=f"{bucket}/nowhere"))
    gone = Remote("s3", "bucket/in/gone.txt", 5)
    with pytest.raises(OSError, match="No such file"):
        gone.read_bytes()


@pytest.mark.parametrize(
    "address",
    [
        "https://me:hush@host/a.jsonl", "s3://key:hush@bucket/a", "https://host/a.jsonl?X-Amz-Signature=hush",
        *(f"https://host/a.jsonl?n=1&{name}=hush" for name in ("key", "access_key", "AWSAccessKeyId", "auth", "pwd")),
    ],
)  # fmt: skip
def test_an_address_with_a_key_is_refused_and_the_key_is_not_shown(address: str) -> None:
    with pytest.raises(ConfigError, match="holds a key") as refused:
        located(address)
    assert "hush" not in str(refused.value)
    assert located("https://host/a.jsonl?version=2&sort_key=date&author=me")  # the negative control


def test_a_store_that_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="ftp:// is no store") as refused:
        located("ftp://host/a")
    assert "s3" in str(refused.value)
