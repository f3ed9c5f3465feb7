"""Withdrawn documents: left out before anything, counted, and what was dropped as their copies comes back."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources.documents import SourceFile, open_source
from foundation_core.data.sources.text_archives import ArchivePart
from foundation_core.data.sources.withdrawal import Withdrawal
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import SourceSpec
from tests.support.data_folder import (
    DataFolder,
    folder_source,
    little_ingestion,
    little_text,
    little_texts,
    units,
    write_texts,
)
from tests.support.malformed import tarred
from tests.support.written import zipped


def left_of(patterns: list[str], *files: SourceFile) -> tuple[list[str], dict[str, int]]:
    withdrawn = Counter[str]()
    left = [file.document for file in Withdrawal(patterns).leaves(files, withdrawn)]
    return left, dict(withdrawn)


def file(document: str, source: str = "") -> SourceFile:
    return SourceFile(document, Path("nowhere"), 1, "", source=source)


def documents(folder: Path) -> dict[str, str]:
    tables = ShardDataset(folder / "documents").tables()
    return {row["document"]: row["text"] for table in tables for row in table.to_pylist()}


def test_a_pattern_names_documents_by_id_or_a_source() -> None:
    files = file("web/folder/a[1].txt", "web"), file("web/folder/b.txt", "web"), file("books/folder/a.txt", "books")
    ids = [one.document for one in files]
    assert left_of([], *files) == (ids, {})
    assert left_of(["web"], *files) == (ids[2:], {"web": 2})
    assert left_of(["web/folder/a[1].txt"], *files) == (ids[1:], {"web/folder/a[1].txt": 1})
    assert left_of(["*/a*", "web/*"], *files) == ([], {"*/a*": 2, "web/*": 2})
    assert left_of(["b.txt", "web/folder"], *files) == (ids, {})


def test_a_pattern_that_names_nothing_is_refused_unless_the_whole_is_withdrawn() -> None:
    Withdrawal(["a", "b*"]).require({"a": 1, "b*": 2})
    with pytest.raises(ConfigError, match=r"'b\*' names no document"):
        Withdrawal(["a", "b*"]).require({"a": 1})
    Withdrawal(["wiki", "wiki/table/x.jsonl/000000003"]).require({"wiki": 1})
    with pytest.raises(ValidationError, match="empty text"):
        SourceSpec(withdrawn=("",))


def test_of_a_table_only_the_part_that_holds_a_named_row_may_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": little_text(number)}) + "\n" for number in range(60)))
    (table,) = open_source(SourceSpec(kind="table", path=str(path))).files()
    parts = list(table.parts(2048))
    assert len(parts) > 3
    for number in range(1, 61):
        name = f"table/texts.jsonl/{number:09d}"
        (holder,) = [part for part in parts if part.may_hold(name)]
        assert name in [entry.document for entry in holder.entries()]
        assert left_of([name], holder)[1] == {name: 1}
    assert all(part.may_hold("table/texts.jsonl/*7") and part.may_hold("*/texts*") for part in parts)
    assert not any(part.may_hold("table/other.jsonl/*") or part.may_hold("table/texts.jsonl") for part in parts)


ARCHIVES: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "a.zip": zipped,
    "a.tgz": lambda members: gzip.compress(tarred(members)),
}
every_archive = pytest.mark.parametrize("name", ARCHIVES)


def archive_of(folder: Path, name: str, members: dict[str, str]) -> Path:
    """The folder, with an archive of these members."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(ARCHIVES[name]({member: text.encode() for member, text in members.items()}))
    return folder


@every_archive
def test_of_an_archive_only_the_part_that_holds_a_named_member_may_hold_it(tmp_path: Path, name: str) -> None:
    members = {f"x/{number}.txt": little_text(number) for number in range(60)}
    folder = archive_of(tmp_path / "raw", name, {**members, "./x/7.txt": "a second of its name"})
    (archive,) = open_source(SourceSpec(kind="folder", path=str(folder))).files()
    parts = [part for part in archive.parts(2048) if isinstance(part, ArchivePart)]
    assert len(parts) > 3
    assert {part.digest() for part in parts} == {archive.digest()}
    for member in members:
        document = f"folder/{name}/{member}"
        (holder,) = [part for part in parts if part.may_hold(document)]
        assert document in [entry.document for entry in holder.entries()]
        left, withdrawn = left_of([document], holder)
        assert withdrawn == {document: 1}
        assert left == [entry.document for entry in holder.entries() if entry.document != document]
    at = f"folder/{name}"
    assert all(part.may_hold(f"{at}/*7.txt") and part.may_hold("*/a*") and part.may_hold(f"{at}/*") for part in parts)
    wrong = [at, f"{at}/x", f"{at}/x/60.txt", f"{at}/x/*".replace(name, "b.zip"), "folder/x/7.txt", "x/7.txt"]
    assert not any(part.may_hold(pattern) for part in parts for pattern in wrong)


@every_archive
def test_a_pattern_that_fits_the_name_of_a_part_names_no_document_by_it(tmp_path: Path, name: str) -> None:
    folder = archive_of(tmp_path / "raw", name, {f"x/{number}.txt": little_text(number) for number in range(60)})
    (archive,) = open_source(SourceSpec(kind="folder", path=str(folder))).files()
    rows = "".join(json.dumps({"text": little_text(number)}) + "\n" for number in range(60))
    (tmp_path / "texts.jsonl").write_text(rows)
    (table,) = open_source(SourceSpec(kind="table", path=str(tmp_path / "texts.jsonl"))).files()
    for file, least in ((archive, 60), (table, 54)):
        for part in file.parts(2048):
            pattern = f"{file.document}/*{part.document[-1]}"  # no name of a member ends so, and every tenth row
            fitting = [entry.document for entry in part.entries() if entry.document.endswith(pattern[-1])]
            left, withdrawn = left_of([pattern], part)
            assert withdrawn == ({pattern: len(fitting)} if fitting else {})
            assert not set(fitting) & set(left)
            assert len(left) == sum(1 for _ in part.entries()) - len(fitting)
            least -= len(left)
        assert least <= 0


@every_archive
def test_a_member_is_withdrawn_its_unit_alone_is_read_again_and_its_copy_comes_back(tmp_path: Path, name: str) -> None:
    members = {f"x/{number:03d}.txt": little_text(number) for number in range(60)}
    members = {**members, "y/copy.txt": members["x/010.txt"]}
    raw, folder = archive_of(tmp_path / "raw", name, members), DataFolder(tmp_path / "home")
    at = f"folder/{name}"
    source: dict[str, Any] = {"kind": "folder", "path": str(raw)}
    folder.ingest(little_ingestion(source))
    before = documents(folder.last)
    assert f"{at}/y/copy.txt" not in before

    gone = f"{at}/x/010.txt"
    result = folder.ingest(little_ingestion({**source, "withdrawn": [gone]}))
    after = documents(folder.last)
    assert set(before) - set(after) == {gone}
    assert set(after) - set(before) == {f"{at}/y/copy.txt"}
    assert result.summary["withdrawn"] == {gone: 1}
    assert result.summary["documents"]["in"] == 60
    assert units(result)["read"][1] == 1

    some = folder.ingest(little_ingestion({**source, "withdrawn": [f"{at}/x/02*"]}))
    assert set(before) - set(documents(folder.last)) == {f"{at}/x/02{digit}.txt" for digit in range(10)}
    assert some.summary["withdrawn"] == {f"{at}/x/02*": 10}
    (archive,) = open_source(SourceSpec.model_validate(source)).files()
    part = next(iter(archive.parts(1024))).document
    for wrong in (f"{at}/x/060.txt", f"{at}/z/*", part):
        with pytest.raises(ConfigError, match="names no document"):
            folder.ingest(little_ingestion({**source, "withdrawn": [wrong]}))
    with pytest.raises(DataError, match="every document of the source is withdrawn"):
        folder.ingest(little_ingestion({**source, "withdrawn": [at]}))


@every_archive
def test_a_member_that_is_set_aside_as_its_archive_is_cut_is_withdrawn_by_its_id(tmp_path: Path, name: str) -> None:
    members = {**{f"x/{number}.txt": little_text(number) for number in range(60)}, "./x/7.txt": "a second of its name"}
    raw, folder = archive_of(tmp_path / "raw", name, members), DataFolder(tmp_path / "home")
    source: dict[str, Any] = {"kind": "folder", "path": str(raw)}
    spec = {"quarantine_fraction": 0.1}
    first = folder.ingest(little_ingestion(source, **spec))
    (archive,) = open_source(SourceSpec.model_validate(source)).files()
    (aside,) = [part.document for part in archive.parts(1024) if not isinstance(part, ArchivePart)]
    result = folder.ingest(little_ingestion({**source, "withdrawn": [aside]}, **spec))
    assert result.summary["withdrawn"] == {aside: 1}
    assert (first.summary["documents"]["quarantined"], result.summary["documents"]["quarantined"]) == (1, 0)


def test_archives_of_several_sources_are_read_as_their_own_source_says(tmp_path: Path) -> None:
    raw = archive_of(tmp_path / "raw", "a.zip", {f"x/{number}.txt": little_text(number) for number in range(30)})
    folder, results = DataFolder(tmp_path / "home"), []
    for bytes_ in (10_000, 10_001):
        part = {"kind": "folder", "path": str(raw), "reading": {"most_document_bytes": bytes_}}
        results.append(folder.ingest(little_ingestion({"kind": "several", "parts": {"books": part}})))
    assert units(results[1])["read"][0] == 0


def test_a_takedown_gives_what_removing_the_files_would_and_copies_come_back(tmp_path: Path) -> None:
    texts = {**little_texts(), "zzz copy.txt": little_texts()["010.txt"]}
    raw, folder = write_texts(tmp_path / "raw", texts), DataFolder(tmp_path / "home")
    folder.ingest(little_ingestion(raw))
    assert "folder/zzz copy.txt" not in documents(folder.last)
    gone = ["folder/010.txt", "folder/02?.txt"]
    result = folder.ingest(little_ingestion(folder_source(raw, withdrawn=gone)))
    assert documents(folder.last)["folder/zzz copy.txt"] == texts["010.txt"]
    assert not any(document.startswith("folder/02") for document in documents(folder.last))
    assert result.summary["withdrawn"] == {"folder/010.txt": 1, "folder/02?.txt": 10}
    assert result.summary["documents"]["in"] == 50
    assert "withdrawn" in (folder.last / "card" / "data_card.md").read_text()
    _, done = units(result)["read"]
    assert done <= 4

    left = {name: text for name, text in texts.items() if name != "010.txt" and not name.startswith("02")}
    removed = DataFolder(tmp_path / "new").ingest(little_ingestion(write_texts(raw, left)))
    assert removed.outputs == result.outputs
    assert "withdrawn" not in removed.summary


def test_rows_and_whole_sources_are_withdrawn_and_only_what_held_them_is_read_again(tmp_path: Path) -> None:
    for name in ("web", "wiki"):
        rows = [{"text": little_text(f"{name} {number}")} for number in range(60)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = {name: {"kind": "table", "path": str(tmp_path / f"{name}.jsonl")} for name in ("web", "wiki")}
    source: dict[str, Any] = {"kind": "several", "parts": parts}
    folder = DataFolder(tmp_path / "home")
    first = folder.ingest(little_ingestion(source))
    row = "wiki/table/wiki.jsonl/000000012"
    result = folder.ingest(little_ingestion({**source, "withdrawn": [row]}))
    assert result.summary["documents"]["in"] == first.summary["documents"]["in"] - 1 == 119
    assert result.summary["withdrawn"] == {row: 1}
    assert row not in documents(folder.last)
    assert units(result)["read"][1] == 1
    whole = folder.ingest(little_ingestion({**source, "withdrawn": ["wiki"]}))
    assert {document.partition("/")[0] for document in documents(folder.last)} == {"web"}
    assert whole.summary["withdrawn"] == {"wiki": 1}  # its table, whose rows nobody counted
    assert units(whole)["read"][1] == 0
    for wrong, words in ((["wiki", "web"], "every document of the source is withdrawn"), (["wki"], "'wki' names no")):
        with pytest.raises((ConfigError, DataError), match=words):
            folder.ingest(little_ingestion({**source, "withdrawn": wrong}))
