"""Archives are read like folders: every member once, in its format; nothing is followed, written or taken along."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.data.sources.digests import source_content
from foundation_core.data.sources.documents import SourceFile, open_source
from foundation_core.data.sources.modalities import Reader, Text, read_files
from foundation_core.data.sources.text_archives import ArchivePart
from foundation_core.specs import IngestSpec, SourceSpec
from tests.support.accounted import PACKINGS

TEXT = Reader(Text(IngestSpec()), captioned=False)
TARS = [f".tar{packing}" for packing in PACKINGS]
ARCHIVES = [".zip", *TARS]
every_archive = pytest.mark.parametrize("ending", ARCHIVES)
every_form = pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


def _tar(members: Mapping[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def _zip(members: Mapping[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sink.getvalue()


def _archive(ending: str, members: Mapping[str, bytes]) -> bytes:
    return _zip(members) if ending == ".zip" else PACKINGS[ending.removeprefix(".tar")](_tar(members))


def _files(folder: Path, **reading: Any) -> list[SourceFile]:
    spec = SourceSpec.model_validate({"kind": "folder", "path": str(folder), "pattern": "**/*", "reading": reading})
    return open_source(spec).files()


def _read(files: Sequence[SourceFile], unit_bytes: int = 10**6) -> tuple[dict[str, str], dict[str, str]]:
    """Texts and reasons by what stands behind the archive's name."""
    parts = [part for file in files for part in file.parts(unit_bytes)]
    random.Random(0).shuffle(parts)
    documents, quarantined = read_files(parts, TEXT)
    names = [*documents["document"].to_pylist(), *quarantined["document"].to_pylist()]
    assert len(names) == len(set(names))
    texts = {row["document"].split("/", 2)[2]: row["text"] for row in documents.to_pylist()}
    return texts, {row["document"].split("/", 2)[2]: row["reason"] for row in quarantined.to_pylist()}


paths = st.lists(
    st.text("ab.é ", min_size=1, max_size=120).filter(lambda part: part.strip(".")), min_size=1, max_size=3
)
trees = st.dictionaries(paths.map("/".join), st.text("xyz \n", max_size=900), min_size=1, max_size=12)


@given(ending=st.sampled_from(ARCHIVES), tree=trees)
def test_any_members_come_back_from_parts_of_any_size(
    ending: str, tree: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / f"a{ending}").write_bytes(_archive(ending, {name: text.encode() for name, text in tree.items()}))
    for unit_bytes in (1, 1000, 10**9):
        assert _read(_files(folder), unit_bytes) == (tree, {})


@every_archive
def test_a_member_is_read_in_its_format_and_packing_and_is_of_its_archives_group(tmp_path: Path, ending: str) -> None:
    members = {"./page.html": b"<p>a page of words</p>", "in//note.txt.gz": gzip.compress(b"a note"), "x.py": b"pass"}
    (tmp_path / f"a{ending}").write_bytes(_archive(ending, members))
    documents, quarantined = read_files(_files(tmp_path), TEXT)
    assert len(quarantined) == 0
    read = {row["document"]: row["text"].strip() for row in documents.to_pylist()}
    at = f"folder/a{ending}"
    assert read == {f"{at}/page.html": "a page of words", f"{at}/in/note.txt.gz": "a note", f"{at}/x.py": "pass"}
    assert set(documents["group"].to_pylist()) == {f"a{ending}"}


def test_an_archive_is_cut_into_parts_of_bounded_bytes(tmp_path: Path) -> None:
    for ending in ARCHIVES:
        (tmp_path / f"a{ending}").write_bytes(_archive(ending, {f"{n}.txt": b"x" * 1000 for n in range(100)}))
    for file in _files(tmp_path):
        parts = list(file.parts(10_000))
        assert [part.bytes for part in parts] == [10_000] * 10
        assert all(isinstance(part, ArchivePart) for part in parts)


@every_archive
def test_what_leads_elsewhere_is_set_aside_with_its_place_and_nothing_is_written(tmp_path: Path, ending: str) -> None:
    names = ["../../up.txt", "/tmp/absolute.txt", "a/../../b.txt", "C:\\disk.txt", "..\\win.txt", "in.zip", "in.tar.gz"]
    members = {"good.txt": b"good", **dict.fromkeys(names, b"bad")}
    source = tmp_path / "source"
    source.mkdir()
    (source / f"a{ending}").write_bytes(_archive(ending, members))
    texts, reasons = _read(_files(source))
    assert texts == {"good.txt": "good"}
    assert sorted(reason.split(":")[0] for reason in reasons.values()) == sorted(
        ["an absolute path"] * 2 + ["a path that leads out of the archive"] * 3 + ["an archive within an archive"] * 2
    )
    nameless = [name for name in reasons if name.startswith("/")]
    assert len(nameless) == 5
    assert all(name.removeprefix("/").isdigit() for name in nameless)
    assert [path.name for path in tmp_path.rglob("*")] == ["source", f"a{ending}"]


@every_form
def test_links_devices_and_sparse_files_of_a_tar_file_are_not_followed(tmp_path: Path, form: int) -> None:
    sink = io.BytesIO()
    kinds = {"sym": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE, "disk": tarfile.BLKTYPE}
    kinds |= {"folder": tarfile.DIRTYPE, "sparse": tarfile.GNUTYPE_SPARSE, "odd": b"Z"}
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            archive.addfile(info)
        info = tarfile.TarInfo("good.txt")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"good"))
    (tmp_path / "a.tar").write_bytes(sink.getvalue())
    texts, reasons = _read(_files(tmp_path))
    assert texts == {"good.txt": "good"}
    link, device = "a link, which is not followed", "a device and no file"
    unknown = "a member of an unknown type, b'Z'"
    assert reasons == {
        "sym": link,
        "hard": link,
        "pipe": device,
        "disk": device,
        "sparse": "a sparse file",
        "odd": unknown,
    }


def test_links_encrypted_members_and_other_packings_of_a_zip_file_are_not_read(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mode in {"link": 0o120777, "pipe": 0o010644, "folder/": 0o040755}.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, "/etc/hostname" if name != "folder/" else "")
        archive.writestr("bz2.txt", b"text", zipfile.ZIP_BZIP2)
        archive.writestr("good.txt", b"good")
        archive.writestr("secret.txt", b"secret")
    data = bytearray(sink.getvalue())
    place = data.rindex(b"PK\x01\x02")  # the last entry of the directory; the flags stand at its byte 8
    data[place + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    texts, reasons = _read(_files(tmp_path))
    assert texts == {"good.txt": "good"}
    assert reasons == {
        "link": "a link, which is not followed",
        "pipe": "a device and no file",
        "bz2.txt": "it is packed by method 12; allowed: stored, deflated",
        "secret.txt": "encrypted: it",
    }


@every_archive
@pytest.mark.parametrize("unit_bytes", [1, 10**6])
def test_a_second_member_of_a_name_is_set_aside_in_whichever_part_it_is(
    tmp_path: Path, ending: str, unit_bytes: int
) -> None:
    members = {"a.txt": b"first", "b.txt": b"other", "./a.txt": b"second", "a//b.txt": b"x", "a/./b.txt": b"y"}
    (tmp_path / f"a{ending}").write_bytes(_archive(ending, members))
    texts, reasons = _read(_files(tmp_path), unit_bytes)
    assert texts == {"a.txt": "first", "b.txt": "other", "a/b.txt": "x"}
    assert sorted(reasons.values()) == ["a second member is called 'a.txt'", "a second member is called 'a/b.txt'"]


MEMBERS = {f"{number}.txt": f"text {number} ".encode() * (40 * number + 1) for number in range(6)}


@every_form
@given(share=st.floats(0, 1, exclude_max=True))
def test_of_a_tar_file_that_is_cut_anywhere_all_before_the_cut_is_read(
    form: int, share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, data, place, whole = tmp_path_factory.mktemp("cut"), _tar(MEMBERS, form), 0, {}
    cut = int(share * (len(data) - 10_240))  # less than the zeros that fill it up
    (folder / "a.tar").write_bytes(data[:cut])
    cut_within = ""
    for name, content in MEMBERS.items():
        begin, place = place + 512, place + 512 + len(content)
        if place <= cut:
            whole[name] = content.decode()
        elif begin <= cut:
            cut_within = f"the archive is truncated: {place - cut} of its {len(content)} bytes are missing"
        place += -place % 512
    texts, reasons = _read(_files(folder), 700)
    assert texts == whole
    assert len(reasons) == 1
    assert not cut_within or list(reasons.values()) == [cut_within]


@cache
def _noise(ending: str) -> bytes:
    """Texts that pack badly, so that what is cut lies in one of them."""
    return _archive(ending, {f"{n}.txt": random.Random(n).randbytes(5000).hex().encode() for n in range(5)})


@given(ending=st.sampled_from([".tar.gz", ".tar.zst", ".tar.xz"]), share=st.floats(0, 1, exclude_max=True))
def test_of_a_packed_tar_file_that_is_cut_anywhere_a_beginning_is_read_and_the_reason_says_where(
    ending: str, share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    packed = _noise(ending)
    (folder / f"a{ending}").write_bytes(packed[: int(share * len(packed))])
    texts, reasons = _read(_files(folder))
    assert list(texts) == [f"{n}.txt" for n in range(len(texts))]
    assert len(reasons) == 1
    assert "truncated" in next(iter(reasons.values())) or "it begins with" in next(iter(reasons.values()))


@given(hurt=st.integers(0, 5), data=st.data())
def test_a_damaged_member_of_a_tar_file_takes_no_other_along(
    hurt: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(_tar(MEMBERS))
    begin = sum(512 + len(text) + -len(text) % 512 for text in list(MEMBERS.values())[:hurt])
    place = begin + data.draw(st.integers(0, 511))
    whole[place] ^= data.draw(st.integers(1, 255))
    folder = tmp_path_factory.mktemp("hurt")
    (folder / "a.tar").write_bytes(whole)
    texts, reasons = _read(_files(folder))
    name = f"{hurt}.txt"
    if name not in texts:  # a changed byte behind what a checksum covers changes nothing
        size = 512 + len(MEMBERS[name]) + -len(MEMBERS[name]) % 512
        assert reasons == {f"/{begin}": f"damaged: no member's header begins these {size} bytes"}
    assert {key: text for key, text in texts.items() if key != name} == {
        key: text.decode() for key, text in MEMBERS.items() if key != name
    }


@given(data=st.data())
def test_a_damaged_member_of_a_zip_file_takes_no_other_along(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(_zip(MEMBERS))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        info = data.draw(st.sampled_from(archive.infolist()))
    begin = info.header_offset
    whole[data.draw(st.integers(begin, begin + 30 + len(info.filename) + info.compress_size - 1))] ^= 1
    folder = tmp_path_factory.mktemp("hurt")
    (folder / "a.zip").write_bytes(whole)
    texts, reasons = _read(_files(folder))
    assert {*texts, *reasons} == set(MEMBERS)
    assert {name: text for name, text in texts.items() if name != info.filename} == {
        name: text.decode() for name, text in MEMBERS.items() if name != info.filename
    }
    assert all(MEMBERS[name].decode() == text for name, text in texts.items())


@given(data=st.binary(max_size=3000), ending=st.sampled_from(ARCHIVES))
def test_any_bytes_are_an_archive_or_set_aside(
    data: bytes, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    (folder / f"a{ending}").write_bytes(data)
    texts, reasons = _read(_files(folder))
    assert texts or reasons or not any(data)


def test_archives_behind_each_other_are_one_and_what_is_no_archive_between_them_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(_tar({"a.txt": b"a"}) + b"?" * 1024 + _tar({"b.txt": b"b"}))
    texts, reasons = _read(_files(tmp_path))
    assert texts == {"a.txt": "a", "b.txt": "b"}
    assert list(reasons.values()) == ["damaged: no member's header begins these 1024 bytes"]


def _stated(size: int, name: str = "a.txt") -> bytes:
    """The header of a member of a stated size."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_a_stated_size_that_is_none_is_no_header_and_one_that_is_too_large_ends_the_archive(tmp_path: Path) -> None:
    negative = bytearray(_stated(0))
    negative[124:136] = b"\xff" * 12
    negative[148:156] = b"%06o\0 " % (256 + sum(negative[:148]) + sum(negative[156:]))
    (tmp_path / "a.tar").write_bytes(bytes(negative) + _stated(2**60, "big.txt") + b"data")
    texts, reasons = _read(_files(tmp_path))
    assert texts == {}
    assert reasons == {
        "/0": "damaged: no member's header begins these 512 bytes",
        "big.txt": "a member of more than 100000000 bytes",
        "/1028": f"truncated: {2**60 - 4} bytes are missing",
    }


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "member.zip": lambda: _zip({"a.txt": bytes(30_000_000)}),
    "together.zip": lambda: _zip({f"{n}.txt": zlib.compress(bytes(40_000)) + bytes(900_000) for n in range(60)}),
    "a.tar.gz": lambda: gzip.compress(_stated(80_000_000) + bytes(80_000_000)),
    "header.tar.gz": lambda: gzip.compress(_long_name(80_000_000)),
}


def _long_name(size: int) -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.size, info.type = size, tarfile.GNUTYPE_LONGNAME
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(size) + _stated(0)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_set_aside_within_the_bound(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BOMBS[name]())
    tracemalloc.start()
    try:
        texts, reasons = _read(_files(tmp_path))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert texts == {}
    assert any("more than 100 times" in reason for reason in reasons.values())
    assert peak_bytes < 25_000_000


def test_the_content_is_the_bytes_of_the_archive_and_no_place(tmp_path: Path) -> None:
    contents = []
    for folder, text in (("here", b"x"), ("there", b"x"), ("changed", b"y")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.tar").write_bytes(_tar({"a.txt": text}))
        contents.append(source_content(_files(tmp_path / folder)))
    assert contents[0] == contents[1] != contents[2]
