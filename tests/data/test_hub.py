"""Data sets of the Hugging Face hub are sources as folders are; what a token does not open is refused in words."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundation_core.data.sources.digests import source_content
from foundation_core.data.sources.documents import open_source
from foundation_core.data.sources.modalities import Reader, Text, read_files
from foundation_core.errors import DataError, SetupError
from foundation_core.specs import IngestSpec, SourceSpec
from tests.support.hub import REPOSITORY, TOKEN, hub

TEXT = Reader(Text(IngestSpec()), captioned=False)
FILES = {f"in/{number % 2}/{number}.txt": f"the text of number {number}\n".encode() * 9 for number in range(12)}
FILES["in/rows.jsonl.gz"] = gzip.compress(
    b"".join(json.dumps({"text": f"row {n}, " * 9}).encode() + b"\n" for n in range(200))
)
ADDRESS = f"hf://datasets/{REPOSITORY}"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a hub with two revisions."""
    with hub({"main": FILES, "v2": {**FILES, "in/0/new.txt": b"of the second revision\n"}}) as address:
        yield address


@pytest.fixture
def ready(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The same files on this machine."""
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.usefixtures("ready")
def test_a_folder_of_the_hub_is_the_same_source_as_on_this_machine(here: Path) -> None:
    there, local = (
        open_source(SourceSpec(kind="folder", path=path, pattern="**/*.txt")).files()
        for path in (f"{ADDRESS}/in", str(here / "in"))
    )
    assert [(file.document, file.bytes, file.group) for file in there] == [
        (file.document, file.bytes, file.group) for file in local
    ]
    assert len(there) == 12
    assert source_content(there) == source_content(local)
    assert read_files(there, TEXT)[0].equals(read_files(local, TEXT)[0])


@pytest.mark.usefixtures("ready")
def test_a_packed_table_of_the_hub_is_read_in_parts(here: Path) -> None:
    (there,), (local,) = (
        open_source(SourceSpec(kind="table", path=f"{path}/in/rows.jsonl.gz")).files() for path in (ADDRESS, here)
    )
    parts = list(there.parts(2000))
    assert len(parts) > 3
    assert there.digest() == local.digest()
    assert read_files(parts, TEXT)[0].equals(read_files([local], TEXT)[0])


@pytest.mark.usefixtures("ready")
def test_a_revision_is_named_in_the_address() -> None:
    spec = SourceSpec(kind="folder", path=f"{ADDRESS}@v2/in", pattern="**/*.txt")
    files = open_source(spec).files()
    assert len(files) == 13
    assert [file.read() for file in files if file.document == "folder/0/new.txt"] == [b"of the second revision\n"]


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize(
    "address",
    [f"{ADDRESS}/nowhere", f"{ADDRESS}@v3/in", "hf://datasets/owner/other/in"],
    ids=["path", "revision", "repository"],
)
def test_what_is_not_there_is_said_in_words(address: str) -> None:
    with pytest.raises(DataError, match=f"{address} is not there"):
        open_source(SourceSpec(kind="folder", path=address, pattern="**/*.txt"))


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_a_wrong_token_is_refused_in_words_and_not_shown(
    server: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.replace("127.0.0.1", "localhost"))  # a connection of its own
    monkeypatch.setenv("HF_TOKEN", "hf_a-wrong-one")
    with pytest.raises(SetupError, match="may not be read with the key that there is") as refused:
        open_source(SourceSpec(kind=kind, path=f"{ADDRESS}/in/rows.jsonl.gz"))
    assert refused.value.exit_code == 2
    assert "wrong-one" not in str(refused.value)
