"""A thousand malformed corpora: what can be read is kept, all else is set aside with a reason or clearly refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from foundation_core.data.rules import treatments
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources import modalities, text_archives, text_files
from foundation_core.data.tables import cuts
from foundation_core.errors import ConfigError, DataError, FoundationError, SetupError
from foundation_core.events import read_events
from foundation_core.files import PARTIAL
from foundation_core.pages import card
from foundation_core.pages.card import CARD_FOLDER, MARKDOWN_FILE, PAGE_FILE
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from tests.support.accounted import GOOD, MOST_BYTES, PACKINGS, File, good_files, words, write
from tests.support.malformed import corpora, tarred
from tests.support.written import zipped

Contexts = Callable[..., Context]
QUICK, ALL = 60, 1000
"""Corpora in each run of the tests, and in `make test-all`."""


def _spec(folder: Path, **fields: Any) -> IngestSpec:
    reading = {"most_document_bytes": MOST_BYTES, **fields.pop("reading", {})}
    parts = {
        "files": {"kind": "folder", "path": str(folder / "files"), "pattern": "**/*", "reading": reading},
        "rows": {"kind": "table", "path": str(folder / "rows"), "reading": reading},
    }
    usual = {
        "source": {"kind": "several", "parts": parts},
        "split": {"validation_fraction": 0.3, "test_fraction": 0.3},
        "tokenizer": {"vocabulary": 260},
        "unit_bytes": 2048,
        "quarantine_fraction": 1.0,
    }
    return IngestSpec.model_validate({**usual, **fields})


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [row for table in ShardDataset(folder / name).tables() for row in table.to_pylist()]


def _contents(folder: Path) -> dict[str, Any]:
    """All that lies in a folder."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def _check_result(files: Sequence[File], result: Path, summary: dict[str, Any], home: Path) -> None:
    """Nothing of a corpus is lost in a result."""
    kept = {row["document"]: row["text"] for row in _rows(result, "documents")}
    dropped = [row["document"] for row in _rows(result, "dropped")]
    reasons = {row["document"]: row["reason"] for row in _rows(result, "quarantined")}
    everything = [*kept, *dropped, *reasons]
    assert len(everything) == len(set(everything)) == summary["documents"]["in"]
    counts = {name: summary["documents"][name] for name in ("kept", "dropped", "quarantined")}
    assert counts == {"kept": len(kept), "dropped": len(dropped), "quarantined": len(reasons)}
    assert sum(summary["encodings"].values()) == len(kept)
    assert all(reason and str(home) not in reason for reason in reasons.values())
    for file in files:
        assert {
            end: kept.get(file.id + end) for end, word in file.kept.items() if word not in kept.get(file.id + end, "")
        } == {}
        assert [end for end in file.lost if file.id + end not in reasons] == []
        found = [document for document in everything if document == file.id or document.startswith(f"{file.id}/")]
        assert len(found) == file.documents or (file.documents is None and (found or not _has_rows(file)))
    assert (result / CARD_FOLDER / PAGE_FILE).exists()


def _has_rows(file: File) -> bool:
    """Whether something of a table or an archive must be found: a table that is cut may end before its first row."""
    return not str(file.path).startswith("rows/")


def _check(files: Sequence[File], home: Path, context: Contexts, **fields: Any) -> FoundationError | None:
    """Ingest a corpus, and see that it ends as it may."""
    shutil.rmtree(home, ignore_errors=True)
    corpus, result = home / "corpus", home / "result"
    write(corpus, files)
    (home / "outside.txt").write_text("outside")
    before = _contents(corpus)
    summary, refusal = None, None
    try:
        summary = ingest(_spec(corpus, **fields), {}, context(result)).summary
    except (ConfigError, DataError, SetupError) as error:  # the command line ends with 2, and shows no traceback
        refusal = error
    assert _contents(corpus) == before
    assert (home / "outside.txt").read_text() == "outside"
    assert {path.name for path in home.iterdir()} == {"corpus", "result", "outside.txt"}
    assert list(result.rglob(f"*{PARTIAL}")) == []
    if summary is not None:
        assert not any(file.refuses for file in files)
        _check_result(files, result, summary, home)
    return refusal


def _check_mostly_bad(files: Sequence[File], home: Path, context: Contexts) -> None:
    """See that a corpus of which any part may be bad is refused for a missing column alone."""
    refusal = _check(files, home, context)
    if refusal is not None:
        assert any(file.refuses is not False for file in files)
        assert "has no column 'text'" in refusal.found


_few = settings(
    max_examples=QUICK, suppress_health_check=list(HealthCheck), phases=(Phase.generate,)
)  # a corpus that fails is not made smaller: that would take minutes


@pytest.fixture(scope="module", autouse=True)
def _no_plots() -> Iterator[None]:
    """Without the plots of the data card, which are two thirds of the time and have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "charts", lambda facts: {})
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("malformed") / "home"


@_few
@given(files=corpora())
def test_a_malformed_corpus_is_kept_set_aside_or_refused(
    files: list[File], home: Path, serial_context: Contexts
) -> None:
    _check_mostly_bad(files, home, serial_context)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@settings(_few, max_examples=ALL)
@given(files=corpora())
def test_a_thousand_malformed_corpora_are(files: list[File], home: Path, serial_context: Contexts) -> None:
    _check_mostly_bad(files, home, serial_context)


def _little_corpus() -> list[File]:
    """Good files, a table and an archive, each with something in it that cannot be read."""
    lines = b"\n".join([json.dumps({"text": words(100)}).encode(), b"{", json.dumps({"text": words(101)}).encode()])
    table = File(
        "rows/a.jsonl", lines, {"/000000001": "heron100x", "/000000003": "heron101x"}, frozenset({"/000000002"}), 3
    )
    packed = zipped({"a.txt": words(200), "b.txt": b"\xff", "c.txt": words(201)})
    archive = File("files/a.zip", packed, {"/a.txt": "heron200x", "/c.txt": "heron201x"}, frozenset({"/b.txt"}), 3)
    return [*good_files(), table, archive, File("files/odd.txt", b"\0", lost=frozenset({""}))]


def test_the_corpus_of_the_negative_controls_is_as_it_should_be(home: Path, serial_context: Contexts) -> None:
    assert _check(_little_corpus(), home, serial_context) is None


def _without_second(call: Callable[..., Iterable[Any]]) -> Callable[..., Iterator[Any]]:
    """The same things but for the second."""

    def fewer(*arguments: Any) -> Iterator[Any]:
        return (thing for number, thing in enumerate(call(*arguments)) if number != 1)

    return fewer


@pytest.mark.parametrize(
    ("module", "name", "plant"),
    [
        (text_archives, "members", _without_second),
        (text_files, "files_below", _without_second),
        (cuts, "_lines", _without_second),
        (text_archives, "text_entry", lambda read: lambda *args: replace(read(*args), data=b"another text")),
        (modalities, "reason_of", lambda told: lambda error: ""),
        (treatments, "apply_filters", lambda split: lambda kept, *rules: (kept.slice(1), split(kept, *rules)[1])),
    ],
)
def test_a_planted_loss_is_found(
    module: Any, name: str, plant: Callable[..., Any], home: Path, serial_context: Contexts, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, name, plant(getattr(module, name)))
    with pytest.raises(AssertionError):
        _check_mostly_bad(_little_corpus(), home, serial_context)


def test_a_planted_traceback_is_found(home: Path, serial_context: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise KeyError("a fault of the program")

    monkeypatch.setattr(text_archives, "text_entry", broken)
    with pytest.raises(KeyError):
        _check_mostly_bad(_little_corpus(), home, serial_context)


def test_a_budget_says_when_too_much_cannot_be_read(home: Path, serial_context: Contexts) -> None:
    refusal = _check(_little_corpus(), home, serial_context, quarantine_fraction=0.1)
    assert refusal is not None
    assert re.match("3 of (at most 21|19) documents cannot be read: files/folder/a.zip/b.txt: not UTF-8", refusal.found)
    assert _check(_little_corpus(), home, serial_context, quarantine_fraction=0.2) is None


def test_two_files_that_would_have_one_id_are_refused_by_name(home: Path, serial_context: Contexts) -> None:
    twins = [File(name, words(100).encode(), refuses=True) for name in (b"files/\xff.txt", b"files/\\xff.txt")]
    refusal = _check([*good_files(), *twins], home, serial_context)
    assert refusal is not None
    assert refusal.found == r"the source lists files/folder/\xff.txt twice"


@pytest.mark.parametrize("name", ["rows/a.jsonl", "files/a.zip", "files/a.tar"])
def test_units_of_another_size_lose_nothing_of_what_an_interrupted_ingestion_left(
    name: str, home: Path, serial_context: Contexts
) -> None:
    """A part that begins at the same place and is longer is another one."""
    numbers = range(100, 140)
    members = {f"{number}.txt": words(number).encode() for number in numbers}
    data = {
        "rows/a.jsonl": b"".join(json.dumps({"text": words(number)}).encode() + b"\n" for number in numbers),
        "files/a.zip": zipped(members),
        "files/a.tar": tarred(members),
    }[name]
    shutil.rmtree(home, ignore_errors=True)
    write(home / "corpus", [File(name, data)])
    kind, folder = {"rows": ("table", "rows"), "files": ("folder", "files")}[name.partition("/")[0]]
    source = {"kind": kind, "path": str(home / "corpus" / folder), "pattern": "*"}
    for unit_bytes in (4096, 1024, 2048):
        spec = _spec(home / "corpus", source=source, unit_bytes=unit_bytes)
        summary = ingest(spec, {}, serial_context(home / "result")).summary
        assert summary["documents"] == {"in": 40, "kept": 40, "dropped": 0, "quarantined": 0}


def test_texts_in_old_encodings_are_counted(home: Path, serial_context: Contexts) -> None:
    shutil.rmtree(home, ignore_errors=True)
    spanish = [f"El año {number} soñó el niño con la montaña, ¿qué más pasó?" for number in range(3)]
    old = [File(f"files/{n}.txt", text.encode("cp1252")) for n, text in enumerate(spanish)]
    write(home / "corpus", [*good_files(), *old, File("files/wide.txt", "ancho".encode("utf-16"))])
    context = serial_context(home / "result")
    result = ingest(_spec(home / "corpus", reading={"repair_encoding": True}), {}, context)
    assert result.summary["encodings"] == {"utf-8": GOOD, "latin-1": 3, "utf-16": 1}
    told = "4 texts were in other encodings than UTF-8 and were repaired: 3 latin-1, 1 utf-16"
    assert told in [event.get("text") for _, event in read_events(home / "result")]
    card_text = (home / "result" / CARD_FOLDER / MARKDOWN_FILE).read_text()
    assert told.replace("latin-1", "`latin-1`").replace("utf-16", "`utf-16`") in card_text
    assert "utf-16" in (home / "result" / CARD_FOLDER / PAGE_FILE).read_text()


# -------------------------------------------------------------------------------------------------------- large cases

_IN_A_CHILD = """
import sys
from pathlib import Path
from foundation_core.alone import alone
from foundation_core.pages import card
from foundation_core.specs import IngestSpec
from foundation_core.stages.ingest import ingest

card.charts = lambda facts: {}
documents = ingest(IngestSpec.model_validate_json(sys.argv[1]), {}, alone(Path(sys.argv[2]))).summary["documents"]
# not ru_maxrss, which begins with what the parent held when it forked
status = dict(line.split(":") for line in open("/proc/self/status"))
print(documents["kept"], documents["quarantined"], int(status["VmHWM"].split()[0]) // 1024)
"""
_LINE_BYTES = 100_000_000


def _ingested_in_a_child(home: Path) -> tuple[int, int, int]:
    """Documents that were kept and that were quarantined, and the most MiB of memory that the process had."""
    spec = _spec(home / "corpus", reading={"most_document_bytes": 10_000_000}, unit_bytes=1_000_000)
    command = [sys.executable, "-c", _IN_A_CHILD, spec.model_dump_json(), str(home / "result")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, quarantined, mib = map(int, run.stdout.split())
    return kept, quarantined, mib


def _bomb(packed: bytes) -> bytes:
    """A packed file of a GB of zeros: one of 10 MB, a hundred times."""
    return packed * 100


def _long_line(path: Path, begin: bytes) -> None:
    """A file of one line of 100 MB, and a short one behind it."""
    with open(path, "wb") as sink:
        sink.write(begin)
        for _ in range(_LINE_BYTES // 1_000_000):
            sink.write(b"a" * 1_000_000)
        sink.write(b'"}\n{"text": "' + words(100).encode() + b'"}\n')


def test_lines_of_100_mb_and_bombs_take_no_more_memory_than_little_files(tmp_path: Path) -> None:
    little, large = tmp_path / "little", tmp_path / "large"
    for home in (little, large):
        write(home / "corpus", [*good_files(), File("rows/a.jsonl", b'{"text": "of one line"}')])
    files, zeros = large / "corpus" / "files", bytes(10_000_000)
    _long_line(files / "line.txt", b"")
    _long_line(large / "corpus" / "rows" / "line.jsonl", b'{"text": "')
    _long_line(large / "corpus" / "rows" / "line.csv", b'text\n"')
    for ending, pack in PACKINGS.items():
        if ending:
            (files / f"bomb.txt{ending}").write_bytes(_bomb(pack(zeros)))
            (files / f"bomb.tar{ending}").write_bytes(_bomb(pack(zeros)))
            (large / "corpus" / "rows" / f"bomb.jsonl{ending}").write_bytes(_bomb(pack(zeros)))
    (files / "bomb.zip").write_bytes(zipped({f"{number}.txt": zeros[:9_000_000] for number in range(20)}))
    kept, quarantined, mib = _ingested_in_a_child(little)
    assert (kept, quarantined) == (GOOD + 1, 0)
    large_kept, large_quarantined, large_mib = _ingested_in_a_child(large)
    assert large_kept == GOOD + 3  # of both tables the line behind the one of 100 MB, too
    assert large_quarantined == 3 + 9 + 20
    assert large_mib < mib + 100, (mib, large_mib)
