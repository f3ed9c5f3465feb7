"""Malformed corpora: folders of texts, archives and tables in which good documents stand beside every fault we know."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from backports import zstd
from hypothesis import strategies as st

from tests.support.accounted import MOST_BYTES, PACKINGS, File, good_files, words
from tests.support.written import docx, odt, pdf

Draw = Callable[[st.SearchStrategy[Any]], Any]


@st.composite
def corpora(draw: Draw) -> list[File]:
    """The good files and up to six others, each with a fault or with good neighbours of faults in it."""
    kinds = draw(st.lists(st.sampled_from(FAULTS), min_size=1, max_size=6))
    return good_files() + [draw(kind(f"{number}", 100 * (number + 1))) for number, kind in enumerate(kinds)]


# ------------------------------------------------------------------------------------------------- one text in a file


@st.composite
def _no_text(draw: Draw, name: str, number: int) -> File:
    """A file of text with bytes in it that no text has, at any place."""
    data = words(number).encode()
    place = draw(st.integers(0, len(data)))
    wrong = draw(st.sampled_from([b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\0", b"\xf5\x80\x80\x80"]))
    return File(f"files/{name}.txt", data[:place] + wrong + data[place:], lost=frozenset({""}))


@st.composite
def _any_bytes(draw: Draw, name: str, number: int) -> File:
    """Any bytes under any ending; also none."""
    ending = draw(st.sampled_from([".txt", "", ".html", ".pdf", ".docx", ".odt", ".md", ".txt.gz", ".txt.zst", ".7z"]))
    return File(f"files/{name}{ending}", draw(st.binary(max_size=200)))


def _written(number: int) -> dict[str, bytes]:
    """A text in every format."""
    text = words(number)
    return {
        ".txt": text.encode(),
        ".md": f"---\ntitle: x\n---\n{text}".encode(),
        ".html": f"<html><body><p>{text}</p></body></html>".encode(),
        ".pdf": pdf([text]),
        ".docx": docx([text]),
        ".odt": odt([text]),
    }


@st.composite
def _formatted(draw: Draw, name: str, number: int) -> File:
    """A document of any format: as it should be, under another's name, cut, changed or with something behind it."""
    forms = _written(number)
    form, packing = draw(st.sampled_from(sorted(forms))), draw(st.sampled_from(sorted(PACKINGS)))
    data = PACKINGS[packing](forms[form])
    fault = draw(st.sampled_from(["none", "name", "cut", "changed", "longer"]))
    if fault == "none":
        return File(f"files/{name}{form}{packing}", data, {"": f"heron{number}x"})
    if fault == "name":
        return File(
            f"files/{name}{draw(st.sampled_from(['.pdf', '.docx', '.gz', '.xz', '.txt', '.zip']))}",
            data,
            documents=None,
        )
    place = draw(st.integers(0, len(data) - 1))
    changed = {
        "cut": data[:place],
        "changed": data[:place] + bytes([data[place] ^ draw(st.integers(1, 255))]) + data[place + 1 :],
        "longer": data + draw(st.binary(min_size=1, max_size=20)),
    }
    cut = fault == "cut" and packing != ""
    return File(f"files/{name}{form}{packing}", changed[fault], lost=frozenset({""} if cut else ()))


@st.composite
def _too_much(draw: Draw, name: str, number: int) -> File:
    """What unpacks to more than is allowed, is larger, or is deeper than a parser goes."""
    made = {
        ".txt": b"a" * (MOST_BYTES + 1),
        ".txt.gz": gzip.compress(bytes(2_000_000), mtime=0),
        ".txt.xz.gz": gzip.compress(lzma.compress(bytes(2_000_000)), mtime=0),
        ".txt.zst": zstd.compress(bytes(2_000_000)),
        ".gz.gz.gz": b"\x1f\x8b",
        ".html": b"<div>" * 6000 + words(number).encode(),
        ".docx": docx([" " * 2_000_000]),
    }
    ending = draw(st.sampled_from(sorted(made)))
    return File(f"files/{name}{ending}", made[ending], lost=frozenset({""}))


@st.composite
def _link(draw: Draw, name: str, number: int) -> File:
    """A link to itself, to nothing, to a folder above."""
    leads = draw(st.sampled_from([f"{name}.txt", "nowhere.txt", "..", "."]))
    if leads in (".", ".."):
        return File(f"files/{name}", leads, documents=0)
    return File(f"files/{name}.txt", leads, lost=frozenset({""}))


@st.composite
def _odd_name(draw: Draw, name: str, number: int) -> File:
    """A good text under a name that is hard to write down."""
    odd = draw(
        st.sampled_from([b"\xff\xfe", "ñ\u0301".encode(), b"a\nb", b"'; --", b" ", b"x" * 240, b"\\..\\", b"%00"])
    )
    return File(b"files/" + name.encode() + odd, words(number).encode(), {"": f"heron{number}x"})


# ------------------------------------------------------------------------------------------------------------ archives


@dataclass(frozen=True)
class _Member:
    name: str
    data: bytes
    word: str = ""
    type: bytes = tarfile.REGTYPE

    @property
    def good(self) -> bool:
        """Whether it must be kept: its text has a word that is asked for."""
        return bool(self.word)


@st.composite
def _members(draw: Draw, number: int) -> list[_Member]:
    """Some members, the first of them good."""
    made = [_Member("first.txt", words(number).encode(), f"heron{number}x")]
    for at in range(draw(st.integers(0, 5))):
        text, word = words(number + at + 1).encode(), f"heron{number + at + 1}x"
        choices = [
            _Member(f"{at}/good.txt", text, word),
            _Member(f"./{at}//dotted.txt", text, word),
            _Member(f"{at}/{'long' * 60}/ü.html", b"<p>" + text + b"</p>", word),
            _Member(f"{at}.txt.gz", gzip.compress(text, mtime=0), word),
            _Member(f"{at}.txt", b"\xff" + text),
            _Member(f"../../{at}.txt", text),
            _Member(f"/tmp/{at}.txt", text),
            _Member("first.txt", text),
            _Member(f"{at}.zip", text),
            _Member(f"{at}.txt", b"a" * (MOST_BYTES + 1)),
            _Member(f"{at}-link.txt", b"", "", tarfile.SYMTYPE),
            _Member(f"{at}-copy.txt", b"", "", tarfile.LNKTYPE),
            _Member(f"{at}-pipe", b"", "", tarfile.FIFOTYPE),
        ]
        made.append(draw(st.sampled_from(choices)))
    return made


def _tar(members: Iterable[_Member], form: int) -> tuple[bytes, list[tuple[int, int]]]:
    """A tar file, and of each member where its headers begin and its data ends."""
    sink = io.BytesIO()
    places = []
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for member in members:
            info, begin = tarfile.TarInfo(member.name), sink.tell()
            info.type, info.size, info.linkname = member.type, len(member.data), "/etc/hostname"
            archive.addfile(info, io.BytesIO(member.data))
            places.append((begin, sink.tell()))
    return sink.getvalue(), places


def tarred(members: Mapping[str, bytes]) -> bytes:
    """A tar file of members."""
    return _tar((_Member(name, data) for name, data in members.items()), tarfile.PAX_FORMAT)[0]


def _zip(members: Iterable[_Member]) -> tuple[bytes, list[tuple[int, int]]]:
    """A zip file, and of each member where its data begins and ends."""
    sink = io.BytesIO()
    places = []
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            info = zipfile.ZipInfo(member.name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = {tarfile.SYMTYPE: 0o120777, tarfile.FIFOTYPE: 0o010644}.get(
                member.type, 0o100644
            ) << 16
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a second member of a name is one of the faults
                archive.writestr(info, member.data)
            end = sink.tell()
            places.append((end - info.compress_size, end))
    return sink.getvalue(), places


def _name_kept(member: _Member) -> str:
    return "/" + "/".join(part for part in member.name.split("/") if part not in ("", "."))


def _keeps(members: Iterable[_Member]) -> dict[str, str]:
    return {_name_kept(member): member.word for member in members if member.good}


@st.composite
def _archive(draw: Draw, name: str, number: int) -> File:
    """An archive: whole, cut, or with one member damaged."""
    members = draw(_members(number))
    tar, packing = draw(st.booleans()), ""
    if tar:
        packing = draw(st.sampled_from(sorted(PACKINGS)))
        data, places = _tar(members, draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])))
    else:
        members = [member for member in members if member.type != tarfile.LNKTYPE]
        data, places = _zip(members)
    path = f"files/{name}{'.tar' if tar else '.zip'}{packing}"
    kept = _keeps(members)
    fault = draw(st.sampled_from(["none", "cut", "member"]))
    if fault == "none":
        return File(path, PACKINGS[packing](data), kept, documents=len(members))
    if fault == "cut" and packing:
        packed = PACKINGS[packing](data)
        return File(path, packed[: draw(st.integers(0, len(packed) - 1))], documents=None)
    if fault == "cut":
        cut = draw(st.integers(0, len(data) - 1))
        whole = [member for member, (_, end) in zip(members, places, strict=True) if tar and end <= cut]
        return File(path, data[:cut], _keeps(whole), documents=None)
    damaged = draw(st.integers(0, len(members) - 1))
    begin, end = places[damaged]
    place = draw(st.integers(begin, end - 1)) if end > begin else begin
    changed = data[:place] + bytes([data[place] ^ draw(st.integers(1, 255))]) + data[place + 1 :]
    hurt = _name_kept(members[damaged])
    kept = {name: word for name, word in kept.items() if name != hurt}
    if any(member.name == members[damaged].name for member in members[:damaged] + members[damaged + 1 :]):
        kept.pop(hurt, None)
    return File(path, PACKINGS[packing](changed), kept, documents=None)


# -------------------------------------------------------------------------------------------------------------- tables

_DEEP = "[" * 5000
_WRONG_LINES = (
    b"{", b"[1, 2]", b"null", b'{"text": 5}', b'{"text": null}', b'{"other": "x"}', b'{"text": "a\xff"}', b"\xff\xfe",
    b'{"text": "\\ud800"}', b'{"text": "a\\u0000b"}', b'{"text": ["a"]}', f'{{"text": {_DEEP}'.encode(), b"\0",
    b'{"text": "' + b"a" * (MOST_BYTES + 1) + b'"}',
)  # fmt: skip


@st.composite
def _lines(draw: Draw, name: str, number: int) -> File:
    """JSON lines: good ones, wrong ones, in any order."""
    rows = draw(st.lists(st.sampled_from([None, *range(len(_WRONG_LINES))]), min_size=1, max_size=8))
    lines = [
        json.dumps({"text": words(number + at)}).encode() if row is None else _WRONG_LINES[row]
        for at, row in enumerate(rows)
    ]
    kept = {f"/{at + 1:09d}": f"heron{number + at}x" for at, row in enumerate(rows) if row is None}
    lost = frozenset(f"/{at + 1:09d}" for at, row in enumerate(rows) if row is not None)
    packing = draw(st.sampled_from(sorted(PACKINGS)))
    file = File(f"rows/{name}.jsonl{packing}", PACKINGS[packing](b"\n".join(lines)), kept, lost, len(rows))
    without_column = all(row in _NO_COLUMN for row in rows if row is not None) and None not in rows
    return _refused(file) if without_column and any(row in _OBJECTS for row in rows) else _hurt(draw, file)


_NO_COLUMN = frozenset(range(len(_WRONG_LINES))) - {3, 4, 9, 10, 13}
"""Lines that name no column "text", for they are no objects or have others."""
_OBJECTS = frozenset({5})


def _refused(file: File) -> File:
    return File(file.path, file.data, refuses=True)


def _hurt(draw: Draw, file: File) -> File:
    """A table as it is, cut, or with a byte changed; then its column may be gone."""
    data, fault = file.data, draw(st.sampled_from(["none", "none", "cut", "changed"]))
    assert isinstance(data, bytes)
    place = draw(st.integers(0, len(data) - 1))
    if fault == "none":
        return file
    changed = data[:place] + bytes([data[place] ^ draw(st.integers(1, 255))]) + data[place + 1 :]
    return File(file.path, data[:place] if fault == "cut" else changed, documents=None, refuses=None)


@st.composite
def _records(draw: Draw, name: str, number: int) -> File:
    """A CSV or TSV file, packed or not, some of its records of too many fields or with a quote that never closes."""
    ending, delimiter = draw(st.sampled_from([(".csv", ","), (".tsv", "\t")]))
    sink = io.StringIO(newline="")
    lines = csv.writer(sink, delimiter=delimiter)
    lines.writerow(["id", "text"])
    rows = draw(st.lists(st.sampled_from(["good", "good", "too many", "open"]), min_size=1, max_size=8))
    for at, row in enumerate(rows):
        if row == "good":
            lines.writerow([at, f"two\nlines, {words(number + at)}"])
        elif row == "too many":
            lines.writerow([at, words(number + at), "one more"])
        else:
            sink.write(f'{at}{delimiter}"never closed\r\n')
    kept = {f"/{at + 1:09d}": f"heron{number + at}x" for at, row in enumerate(rows) if row == "good"}
    lost = frozenset(f"/{at + 1:09d}" for at, row in enumerate(rows) if row != "good")
    packing = draw(st.sampled_from(sorted(PACKINGS)))
    data = PACKINGS[packing](sink.getvalue().encode())
    return _hurt(draw, File(f"rows/{name}{ending}{packing}", data, kept, lost, len(rows)))


@st.composite
def _columns(draw: Draw, name: str, number: int) -> File:
    """A Parquet or Arrow file of texts, bytes or numbers, packed or not; or with another column."""
    count = draw(st.integers(1, 6))
    texts = [words(number + at) for at in range(count)]
    kind = draw(st.sampled_from(["texts", "bytes", "numbers", "other"]))
    column: pa.Array = pa.array(list(range(count))) if kind == "numbers" else pa.array(texts)
    if kind == "bytes":
        column = pa.array([text.encode() if at % 2 else b"\xff" for at, text in enumerate(texts)], pa.binary())
    table = pa.table({"text" if kind != "other" else "texts": column})
    sink = io.BytesIO()
    ending = draw(st.sampled_from([".parquet", ".arrow", ".feather"]))
    if ending == ".parquet":
        pq.write_table(table, sink, row_group_size=2)
    else:
        with (pa.ipc.new_file if ending == ".arrow" else pa.ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table, 2)
    packing = draw(st.sampled_from(sorted(PACKINGS)))
    path, data = f"rows/{name}{ending}{packing}", PACKINGS[packing](sink.getvalue())
    if kind == "other":
        return File(path, data, refuses=True)
    good = [at for at in range(count) if kind == "texts" or (kind == "bytes" and at % 2)]
    kept = {f"/{at + 1:09d}": f"heron{number + at}x" for at in good}
    lost = frozenset(f"/{at + 1:09d}" for at in range(count) if at not in good)
    return _hurt(draw, File(path, data, kept, lost, count))


FAULTS = (
    _no_text, _any_bytes, _formatted, _formatted, _too_much, _link, _odd_name, _archive, _archive, _archive, _lines,
    _lines, _records, _columns,
)  # fmt: skip
"""What makes a file, given its name and the number of its first text; some more often."""
