"""A thousand malformed corpora: what can be read is kept, all else is set aside with a reason or clearly refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from foundation_core.data.shards import ShardDataset
from foundation_core.errors import ConfigError, DataError, FoundationError, SetupError
from foundation_core.files import PARTIAL
from foundation_core.pages import card
from foundation_core.pages.card import CARD_FOLDER, PAGE_FILE
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from tests.support.malformed import MOST_BYTES, File, corpora, write

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
    assert (refusal is not None) == any(file.refuses for file in files)
    assert refusal is None or "has no column 'text'" in refusal.found


_few = settings(max_examples=QUICK, suppress_health_check=list(HealthCheck))


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
