"""A folder's files are read by what they are packed in and by their format, and say which encoding they were in."""

from __future__ import annotations

import errno
import gzip
import lzma
import os
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from foundation_core.data.sources.digests import source_content
from foundation_core.data.sources.documents import open_source
from foundation_core.data.sources.modalities import Reader, Text, read_files
from foundation_core.errors import ConfigError
from foundation_core.specs import IngestSpec, SourceSpec
from tests.support.written import zipped

SPANISH = "El niño comió una piña en la montaña; después durmió la siesta y soñó con el otoño. ¿Qué más pasó? " * 4
PAGE = f"<html><head><title>x</title><script>var hidden = 1;</script></head><body><p>{SPANISH}</p></body></html>"
TEXT = Reader(Text(IngestSpec()), captioned=False)


def _read(folder: Path, **reading: Any) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    spec = SourceSpec.model_validate({"kind": "folder", "path": str(folder), "pattern": "**/*", "reading": reading})
    documents, quarantined = read_files(open_source(spec).files(), TEXT)
    read = {row["document"].removeprefix("folder/"): row for row in documents.to_pylist()}
    return read, {row["document"].removeprefix("folder/"): row["reason"] for row in quarantined.to_pylist()}


def test_a_text_comes_out_of_every_packing_and_format(tmp_path: Path) -> None:
    data = SPANISH.encode()
    for name, packed in {
        "plain.txt": data,
        "a.txt.gz": gzip.compress(data),
        "a.txt.xz": lzma.compress(data),
        "a.txt.zst": zstd.compress(data),
        "page.html": PAGE.encode(),
        "page.html.gz": gzip.compress(PAGE.encode()),
    }.items():
        (tmp_path / name).write_bytes(packed)
    read, refused = _read(tmp_path)
    assert refused == {}
    assert {name: row["text"].strip() for name, row in read.items()} == dict.fromkeys(read, SPANISH.strip())
    assert len(read) == 6


def test_an_old_encoding_is_repaired_and_named_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes(SPANISH.encode("cp1252"))
    (tmp_path / "new.txt").write_bytes(SPANISH.encode())
    read, refused = _read(tmp_path, repair_encoding=True)
    assert refused == {}
    assert read["old.txt"]["text"] == read["new.txt"]["text"] == SPANISH
    assert read["old.txt"]["encoding"] != read["new.txt"]["encoding"] == "utf-8"
    _, refused = _read(tmp_path)  # the negative control
    assert refused == {"old.txt": "not UTF-8: byte 0xf1 at offset 5"}


def test_what_cannot_be_read_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(SPANISH.encode())[:-9])
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(bytes(10_000_000)))
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    (tmp_path / "thrice.gz.gz.gz").write_bytes(b"")
    (tmp_path / "large.txt").write_text("x" * 3000)
    (tmp_path / "good.txt").write_text(SPANISH)
    read, refused = _read(tmp_path, most_document_bytes=2000)
    assert list(read) == ["good.txt"]
    assert set(refused) == {"cut.txt.gz", "bomb.txt.gz", "picture.txt", "thrice.gz.gz.gz", "large.txt"}
    assert all(refused.values())


def test_links_to_nothing_and_closed_folders_are_set_aside_and_a_link_to_a_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "good.txt").write_text(SPANISH)
    for name, leads in {"link.txt": "good.txt", "lost.txt": "nowhere", "loop.txt": "loop.txt", "up": ".."}.items():
        (tmp_path / name).symlink_to(leads)
    look = os.scandir

    def closed(path: Any) -> Any:  # no folder is closed to root, who runs these tests in a container
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", closed)
    read, refused = _read(tmp_path)
    assert set(read) == {"good.txt", "link.txt"}
    assert set(refused) == {"lost.txt", "loop.txt", "closed"}
    assert refused["lost.txt"] == "unreadable: No such file or directory"
    assert refused["loop.txt"] == "unreadable: Too many levels of symbolic links"
    assert refused["closed"].startswith("unreadable: ")


def test_the_content_is_the_bytes_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(PAGE)
    spec = SourceSpec(kind="folder", path=str(tmp_path), pattern="**/*")
    before = source_content(open_source(spec).files())
    assert source_content(open_source(spec).files()) == before
    (tmp_path / "page.html").write_text(PAGE + " ")
    assert source_content(open_source(spec).files()) != before


def _listed(path: Path, **fields: Any) -> tuple[list[str], list[str]]:
    source = open_source(SourceSpec.model_validate({"kind": "folder", "path": str(path), **fields}))
    return [file.document.removeprefix("folder/") for file in source.files()], getattr(source, "findings", [])


def _tree(folder: Path) -> None:
    names = [
        "a.txt",
        "README",
        "b/c.md.gz",
        "b/main.rs",
        "page.html",
        "old.tar.xz",
        "rows.jsonl",
        "b/t.csv.gz",
        "x.png",
        "y.png",
        "z.so",
    ]
    for name in (*names, ".git/config", ".git/objects/ab.txt", "b/.hidden.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_without_a_pattern_texts_are_read_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    _tree(tmp_path)
    found, said = _listed(tmp_path)
    assert found == ["README", "a.txt", "b/c.md.gz", "b/main.rs", "old.tar.xz", "page.html"]
    assert said == [
        "2 tables are left out, such as folder/b/t.csv.gz: source.kind=table reads their rows",
        "3 files are left out that are hidden, or lie in hidden folders",
        "3 files are left out that are no texts by their names (2 .png, 1 .so): source.pattern names what is read",
    ]


def test_a_table_that_a_pattern_names_is_one_text_and_the_log_says_so(tmp_path: Path) -> None:
    _tree(tmp_path)
    found, said = _listed(tmp_path, pattern="**/*.jsonl")
    assert found == ["rows.jsonl"]
    assert said == [
        "each of 1 tables is read as one text, such as folder/rows.jsonl: source.kind=table reads their rows"
    ]


def test_several_patterns_and_a_path_with_a_star_name_files(tmp_path: Path) -> None:
    _tree(tmp_path)
    assert _listed(tmp_path, pattern="**/*.txt | b/*.rs|a.*")[0] == [
        ".git/objects/ab.txt", "a.txt", "b/.hidden.txt", "b/main.rs"
    ]  # fmt: skip
    assert _listed(tmp_path / "b" / "*.rs")[0] == ["main.rs"]
    assert _listed(tmp_path / "*" / "*.rs")[0] == ["b/main.rs"]
    with pytest.raises(ConfigError, match="both say which files"):
        _listed(tmp_path / "*.txt", pattern="*")
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text('{"text": "x"}\n')
    tables = open_source(SourceSpec(kind="table", path=str(tmp_path / "*o*.jsonl"))).files()
    assert [table.document for table in tables] == ["table/one.jsonl", "table/rows.jsonl", "table/two.jsonl"]


@pytest.mark.parametrize("name", ["notes.txt", "notes", ".notes.dat", "a.zip", "a b*.txt"])
def test_a_file_alone_is_what_a_folder_that_holds_it_alone_is(tmp_path: Path, name: str) -> None:
    data = zipped({"x/1.txt": SPANISH, "2.txt": "two"}) if name == "a.zip" else SPANISH.encode()
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / name).write_bytes(data)
    whole = open_source(SourceSpec(kind="folder", path=str(tmp_path / "alone"), pattern="**/*")).files()
    (tmp_path / "alone" / "other.txt").write_text("a neighbour, which is not named")
    (file,) = open_source(SourceSpec(kind="folder", path=str(tmp_path / "alone" / name))).files()
    assert [file] == whole
    names = [row["document"] for row in read_files([file], TEXT)[0].to_pylist()]
    assert names == (["folder/a.zip/x/1.txt", "folder/a.zip/2.txt"] if name == "a.zip" else [f"folder/{name}"])


def test_a_pattern_holds_for_a_file_alone_and_a_table_is_one_text_by_a_pattern_only(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text(SPANISH)
    (tmp_path / "rows.csv").write_text("text\na\n")
    found = {
        (name, pattern): len(open_source(SourceSpec(kind="folder", path=str(tmp_path / name), pattern=pattern)).files())
        for name, pattern in [("b.txt", "**/*.txt"), ("b.txt", "*.md | *.txt"), ("b.txt", "*.md"), ("rows.csv", "*")]
    }
    assert list(found.values()) == [1, 1, 0, 1]
    with pytest.raises(ConfigError, match=r"rows\.csv is a table") as refused:
        open_source(SourceSpec(kind="folder", path=str(tmp_path / "rows.csv"))).files()
    assert "source.kind=table" in str(refused.value)
