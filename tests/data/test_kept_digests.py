"""A second look at a source reads only what is new, and a changed file is never taken for the old one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation_core.data.sources import documents, kept_digests
from foundation_core.data.sources.digests import source_content
from foundation_core.data.sources.documents import SourceFile, open_source
from foundation_core.data.sources.kept_digests import FOLDER
from foundation_core.data.stores.places import Place
from foundation_core.data.units.store import prune
from foundation_core.specs import IngestSpec, SourceSpec
from foundation_core.stages import ingest_digests
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from tests.support.bucket import NAME, bucket
from tests.support.ingestion import ShuffledPool

DAY = 86_400
LOOKS = """
import sys, time
from pathlib import Path
from foundation_core.data.sources import kept_digests
from foundation_core.data.sources.digests import source_content
from foundation_core.data.sources.documents import open_source
from foundation_core.specs import SourceSpec
now = time.time_ns
kept_digests.LEAST_FILES, time.time_ns = 0, lambda: now() + 60 * 10**9
for _ in range(4):
    print(source_content(open_source(SourceSpec(kind="folder", path=sys.argv[1])).files(), Path(sys.argv[2])))
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of texts, one of another format."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}.txt").write_text(f"text {number:02} of a folder\n" * (1 + number))
    (folder / "notes.html").write_text("<p>of another format</p>")
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed, of sources of any size."""
    names, real = list[str](), documents.content_digest

    def noted(path: Place, said: str = "") -> str:
        names.append(path.name)
        return real(path, said)

    monkeypatch.setattr(documents, "content_digest", noted)
    monkeypatch.setattr(kept_digests, "LEAST_FILES", 0)
    return names


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets a minute pass, as digests see it."""
    now = time.time_ns
    return lambda: monkeypatch.setattr(time, "time_ns", lambda: now() + 60 * 10**9)


def _files(path: Path | str) -> list[SourceFile]:
    return open_source(SourceSpec(kind="folder", path=str(path))).files()


def _held(units: Path) -> list[Path]:
    return sorted((units / FOLDER).glob("*"))


def test_a_second_look_opens_no_file_and_says_the_same(
    raw: Path, tmp_path: Path, opened: list[str], later: Callable[[], None]
) -> None:
    later()
    whole = source_content(_files(raw))
    for new in (31, 0, 0):
        opened.clear()
        assert source_content(_files(raw), tmp_path / "units") == whole
        assert len(opened) == new
    (raw / "new.txt").write_text("one more")
    assert source_content(_files(raw), tmp_path / "units") != whole
    assert opened == ["new.txt"]


def test_a_file_of_the_same_size_that_was_edited_or_replaced_is_hashed_again(
    raw: Path, tmp_path: Path, opened: list[str], later: Callable[[], None]
) -> None:
    later()
    source_content(_files(raw), tmp_path / "units")
    edited, replaced = raw / "03.txt", raw / "04.txt"
    times = {path: path.stat() for path in (edited, replaced)}
    with open(edited, "r+b") as file:
        file.write(b"TEXT")
    (raw / "aside").write_bytes(replaced.read_bytes().upper())
    os.replace(raw / "aside", replaced)
    for path, was in times.items():  # as rsync and tar leave them
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
        assert path.stat().st_size == was.st_size
    opened.clear()
    assert source_content(_files(raw), tmp_path / "units") == source_content(_files(raw))
    assert sorted(opened[:2]) == ["03.txt", "04.txt"]
    assert len(opened) == 2 + 31


def test_a_file_that_was_touched_a_moment_ago_is_not_trusted(
    raw: Path, tmp_path: Path, opened: list[str], later: Callable[[], None]
) -> None:
    for _ in range(2):
        opened.clear()
        source_content(_files(raw), tmp_path / "units")
        assert len(opened) == 31
    assert _held(tmp_path / "units") == []
    later()
    source_content(_files(raw), tmp_path / "units")
    opened.clear()
    source_content(_files(raw), tmp_path / "units")
    assert opened == []


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    raw: Path, tmp_path: Path, opened: list[str], later: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    later()
    counted = documents.content_digest

    def changed_behind(path: Place, said: str = "") -> str:
        digest = counted(path, said)
        if path.name == "07.txt":
            os.utime(str(path), (0, 0))
        return digest

    monkeypatch.setattr(documents, "content_digest", changed_behind)
    source_content(_files(raw), tmp_path / "units")
    opened.clear()
    source_content(_files(raw), tmp_path / "units")
    assert opened == ["07.txt"]


def test_what_cannot_be_read_is_not_kept(
    raw: Path, tmp_path: Path, opened: list[str], later: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    later()
    counted, files = documents.content_digest, _files(raw)
    monkeypatch.setattr(documents, "content_digest", lambda *_: "unreadable: Input/output error")
    broken = source_content(files, tmp_path / "units")
    monkeypatch.setattr(documents, "content_digest", counted)
    assert source_content(files, tmp_path / "units") == source_content(files) != broken


def test_damaged_lines_are_passed_over(raw: Path, tmp_path: Path, opened: list[str], later: Callable[[], None]) -> None:
    later()
    units = tmp_path / "units"
    whole = source_content(_files(raw), units)
    (path,) = _held(units)
    lines = path.read_bytes().splitlines(keepends=True)
    digit = b"1" if lines[2][40:41] == b"0" else b"0"
    flipped = lines[2][:40] + digit + lines[2][41:]
    path.write_bytes(b"".join([*lines[:2], flipped, b"\xff\n", *lines[3:-1], lines[-1][:50]]))
    opened.clear()
    assert source_content(_files(raw), units) == whole
    assert len(opened) == 2
    for other in _held(units):
        other.write_bytes(os.urandom(5000))
    opened.clear()
    assert source_content(_files(raw), units) == whole
    assert len(opened) == 31


def test_processes_at_once_do_no_harm(raw: Path, tmp_path: Path, opened: list[str], later: Callable[[], None]) -> None:
    later()
    command = [sys.executable, "-c", LOOKS, str(raw), str(tmp_path / "units")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate()[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert {content for one in said for content in one} == {source_content(_files(raw))}
    opened.clear()
    source_content(_files(raw), tmp_path / "units")
    assert opened == []


def test_an_object_that_was_overwritten_is_hashed_again(
    tmp_path: Path, opened: list[str], later: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_digests, "LEAST_FILES", 2000)  # of stores, digests of few files are kept too
    with bucket() as made:
        for name in "ab":
            made.client.put_object(Bucket=NAME, Key=f"in/{name}.txt", Body=b"as it was")
        source_content(_files(f"{made.address}/in"), tmp_path)
        assert _held(tmp_path) == []  # they are a moment old
        later()
        source_content(_files(f"{made.address}/in"), tmp_path)
        opened.clear()
        source_content(_files(f"{made.address}/in"), tmp_path)
        assert opened == []
        stamp = made.client.head_object(Bucket=NAME, Key="in/b.txt")["LastModified"]
        while made.client.head_object(Bucket=NAME, Key="in/b.txt")["LastModified"] == stamp:  # the next second
            made.client.put_object(Bucket=NAME, Key="in/b.txt", Body=b"as it is!")
        source_content(_files(f"{made.address}/in"), tmp_path)
        assert opened == ["b.txt"]


@pytest.mark.parametrize("alone", [True, False])
def test_the_stage_hashes_only_what_the_command_before_it_has_not(
    raw: Path,
    tmp_path: Path,
    opened: list[str],
    later: Callable[[], None],
    serial_context: Callable[..., Context],
    monkeypatch: pytest.MonkeyPatch,
    alone: bool,
) -> None:
    later()
    monkeypatch.setattr(ingest_digests, "ALONE_BYTES", 10**9 if alone else 0)
    source: dict[str, Any] = {"kind": "folder", "path": str(raw)}
    spec = IngestSpec.model_validate({"source": source, "tokenizer": {"vocabulary": 260}, "unit_bytes": 4096})
    context = serial_context(tmp_path / "there", pool=ShuffledPool())
    source_content(_files(raw), context.units)
    (raw / "new.txt").write_text("one more text")
    opened.clear()
    outputs = ingest(spec, {}, context).outputs
    assert opened == ["new.txt"]
    ingest(spec, {}, context)
    assert opened == ["new.txt"]
    assert ingest(spec, {}, serial_context(tmp_path / "anew")).outputs == outputs


def test_kept_digests_are_pruned_when_none_was_used_for_a_while(
    raw: Path, tmp_path: Path, opened: list[str], later: Callable[[], None]
) -> None:
    later()
    units = tmp_path / "units"
    source_content(_files(raw), units)
    (used,) = _held(units)
    unused = used.with_name("unused")
    unused.write_bytes(b"")
    for path in (used, unused):
        os.utime(path, (0, time.time() - 40 * DAY))
    source_content(_files(raw), units)
    prune(units, time.time() - 30 * DAY, remove=False)
    assert _held(units) == sorted([used, unused])
    prune(units, time.time() - 30 * DAY)
    assert _held(units) == [used]
