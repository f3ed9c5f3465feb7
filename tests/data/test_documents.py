"""Sources, ids and normalisation."""

from __future__ import annotations

import os
import sysconfig
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.data.sources.digests import source_content
from foundation_core.data.sources.documents import SourceFile, open_source
from foundation_core.data.sources.modalities import Reader, Text, normalise, read_files
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import IngestSpec, SourceSpec

TEXT = Reader(Text(IngestSpec()), captioned=False)


def folder_spec(path: Path, pattern: str = "**/*.py") -> SourceSpec:
    return SourceSpec(kind="folder", path=str(path), pattern=pattern)


@pytest.mark.parametrize(
    ("pattern", "language"),
    [("*.py", "Python source"), ("a/*.py | b/*.py", "Python source"), ("*.md | *.py", "text"), (None, "text")],
)
def test_a_folder_is_of_python_if_each_of_its_patterns_is(tmp_path: Path, pattern: str | None, language: str) -> None:
    source = SourceSpec(kind="folder", path=str(tmp_path), pattern=pattern)
    assert open_source(source).language == language


def fill(folder: Path) -> list[SourceFile]:
    for name, text in {"z.py": "z = 1\n", "package/a.py": "a = 1\n", "package/deep/b.py": "b = 1\n"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "notes.txt").write_text("not a document")
    return open_source(folder_spec(folder)).files()


def test_files_are_sorted_by_an_id_without_location_and_grouped_by_their_first_folder(tmp_path: Path) -> None:
    assert [(file.document, file.group) for file in fill(tmp_path)] == [
        ("folder/package/a.py", "package"),
        ("folder/package/deep/b.py", "package"),
        ("folder/z.py", ""),
    ]


def test_the_content_of_a_source_does_not_depend_on_where_it_lies(tmp_path: Path) -> None:
    here, there = fill(tmp_path / "here"), fill(tmp_path / "over" / "there")
    assert source_content(here) == source_content(there)
    for change in ("edit", "rename"):  # the negative control: what a later stage would see, changes it
        (tmp_path / change).mkdir()
        fill(tmp_path / change)
        if change == "edit":
            (tmp_path / change / "z.py").write_text("z = 2\n")
        else:
            (tmp_path / change / "z.py").rename(tmp_path / change / "y.py")
        assert source_content(open_source(folder_spec(tmp_path / change)).files()) != source_content(here)


def test_reading_removes_the_byte_order_mark_and_carriage_returns_and_composes_characters() -> None:
    data = b"\xef\xbb\xbf" + "cafe\u0301\r\nold mac\rend\n".encode()
    assert normalise(data) == "caf\u00e9\nold mac\nend\n"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise(text.encode())
    assert normalise(once.encode()) == once.removeprefix("\ufeff")
    assert unicodedata.is_normalized("NFC", once)
    assert "\r" not in once


def test_files_that_are_no_text_are_quarantined_with_the_reason_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "a_latin.py").write_bytes("x = 'h\xe9'\n".encode("latin-1"))
    (tmp_path / "b_marked_latin.py").write_bytes(b"\xef\xbb\xbf# h\xe9\n")
    (tmp_path / "c_nul.py").write_bytes(b"ab\0c")
    (tmp_path / "d_gone.py").write_text("soon gone")
    (tmp_path / "e_good.py").write_text("good = True\n")
    files = open_source(folder_spec(tmp_path)).files()
    (tmp_path / "d_gone.py").unlink()

    documents, quarantined = read_files(files, TEXT)
    assert documents["text"].to_pylist() == ["good = True\n"]
    assert quarantined["reason"].to_pylist() == [
        "not UTF-8: byte 0xe9 at offset 6",
        "not UTF-8: byte 0xe9 at offset 6",
        "not text: a NUL byte at offset 2",
        "unreadable: No such file or directory",
    ]
    assert len(documents) + len(quarantined) == len(files)


def test_a_file_that_vanishes_does_not_keep_the_source_from_having_a_content(tmp_path: Path) -> None:
    files = fill(tmp_path)
    whole = source_content(files)
    files[0].path.unlink()
    assert source_content(files) != whole


def test_a_file_name_that_is_not_utf8_still_gives_an_id(tmp_path: Path) -> None:
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.py"))).write_text("x = 1\n")
    except OSError:
        pytest.skip("this file system allows only UTF-8 names")
    documents, _ = read_files(open_source(folder_spec(tmp_path)).files(), TEXT)
    assert documents["document"].to_pylist() == [r"folder/caf\xe9.py"]


def test_the_standard_library_is_read_without_tests_installed_packages_and_this_machines_paths() -> None:
    source = open_source(SourceSpec(kind="python_stdlib"))
    documents = {file.document: file for file in source.files()}
    assert documents["python_stdlib/json/decoder.py"].group == "json"
    assert documents["python_stdlib/ast.py"].group == ""
    foreign = ("/test/", "/tests/", "idle_test", "site-packages", "_sysconfigdata", "/config-")
    assert not [name for name in documents if any(part in name for part in foreign)]
    assert "Python Software Foundation" in source.licence


@pytest.mark.parametrize("pattern", ["*.py", "**/*.py", "json/*.py", "**/json/*.py", "email/**/[a-m]*.py", "*/*.py"])
def test_a_pattern_means_for_the_standard_library_what_it_means_to_glob(pattern: str) -> None:
    root = Path(sysconfig.get_paths()["stdlib"])
    named = {file.path for file in open_source(SourceSpec(kind="python_stdlib", pattern=pattern)).files()}
    everything = {file.path for file in open_source(SourceSpec(kind="python_stdlib")).files()}
    assert named == everything & set(root.glob(pattern))
    assert named


@pytest.mark.parametrize(
    ("kind", "path", "words"),
    [
        ("folder", "absent", "is not there"),
        ("folder", "absent.zip", "is not there"),
        ("image_folder", "a_file.py", "is not a folder"),
    ],
)
def test_a_source_folder_that_is_none_is_named(tmp_path: Path, kind: str, path: str, words: str) -> None:
    (tmp_path / "a_file.py").write_text("x = 1\n")
    with pytest.raises(DataError, match=words):
        open_source(SourceSpec(kind=kind, path=str(tmp_path / path)))


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file matches"):
        source_content(open_source(folder_spec(tmp_path)).files())


def test_two_files_with_one_id_are_refused(tmp_path: Path) -> None:
    files = fill(tmp_path)
    with pytest.raises(DataError, match=r"folder/package/a\.py twice"):
        source_content([*files, files[0]])


@pytest.mark.parametrize("pattern", ["", "/etc/*", "../**/*.py"])
def test_a_pattern_that_leaves_the_folder_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match="does not stay below"):
        open_source(folder_spec(tmp_path, pattern))


def test_a_folder_source_without_a_path_and_an_unknown_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs source\.path"):
        open_source(SourceSpec(kind="folder"))
    with pytest.raises(ConfigError, match="python_stdlib"):  # the message lists what there is
        open_source(SourceSpec(kind="floppy"))
