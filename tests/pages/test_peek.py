"""A look into a data set says where documents are, how they are cut and packed, and what is lost near them."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest
from markupsafe import escape
from PIL import Image
from rich.console import Console

from flows.peek_screen import screen
from foundation_core.data.shards.dataset import ShardDataset, ShardWriter, remove_dataset
from foundation_core.data.sources.modalities import ingest_key
from foundation_core.errors import DataError
from foundation_core.pages.finding import chosen, neighbours, places
from foundation_core.pages.packed import windows
from foundation_core.pages.peek import Wanted, peek
from foundation_core.pages.peek_page import peek_page
from foundation_core.pages.reading import Corpus, open_corpus
from foundation_core.pages.values import png
from foundation_core.specs.loading import Packing
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.store import Result, commit_result
from tests.support.raw_items import CASES
from tests.support.shown import ESCAPES, HARMFUL


@pytest.fixture(scope="module")
def corpus(shown: Result) -> Corpus:
    return open_corpus(shown.folder)


def test_every_document_is_found_in_each_data_set_that_has_it(corpus: Corpus) -> None:
    for name, dataset in corpus.datasets().items():
        for shard, table in enumerate(dataset.tables()):
            for row, document in enumerate(table["document"].to_pylist()):
                found = {place.dataset: place for place in places(corpus, document)}
                assert (found[name].shard, found[name].row) == (shard, row)
                assert found[name].values == table.slice(row, 1).to_pylist()[0]
                lost = name in ("dropped", "quarantined")
                assert set(found) == ({name} if lost else {"documents", f"tokens/{found['documents'].values['split']}"})
    assert corpus.documents.shards > 1


@pytest.mark.parametrize("context_tokens", [7, 64, 100_000])
def test_the_windows_of_a_split_put_together_are_its_documents(corpus: Corpus, context_tokens: int) -> None:
    dataset = corpus.rows["train"]
    for shard, table in enumerate(dataset.tables()):
        tokens = dict(zip(table["document"].to_pylist(), table["tokens"].to_pylist(), strict=True))
        (first,) = [place for place in places(corpus, next(iter(tokens))) if place.dataset == "tokens/train"]
        assert (first.shard, first.row) == (shard, 0)
        rebuilt: dict[str, list[int]] = {}
        for window in windows(dataset, first, context_tokens, 10**6):
            assert window.padding + sum(len(segment.tokens) for segment in window.segments) == context_tokens + 1
            for segment in window.segments:
                so_far = rebuilt.setdefault(segment.document, [])
                repeated = segment.first == 0 and bool(so_far)  # the last token of the row before, as its label
                assert segment.begins == (len(so_far) == repeated)
                assert segment.positions == (0, len(segment.tokens) - 1)
                so_far += segment.tokens[repeated:]
        assert rebuilt == tokens


def test_the_first_window_shown_is_that_in_which_the_document_begins(corpus: Corpus) -> None:
    for document in chosen(corpus, 10, seed=1):
        look = peek(corpus, Wanted(document, context_tokens=20))
        (segment,) = [part for part in look.rows[0].segments if part.document == document]
        assert segment.begins
        assert look.rows[0].split == look.documents[0].facts["split"]
        assert [row.number for row in look.rows] == list(range(look.rows[0].number, look.rows[-1].number + 1))


@pytest.mark.parametrize("packing", get_args(Packing))
@pytest.mark.parametrize("context_tokens", [9, 300])
def test_rows_of_any_packing_are_shown_with_every_label_once(
    corpus: Corpus, packing: Packing, context_tokens: int
) -> None:
    dataset = corpus.rows["train"]
    for table in dataset.tables():
        tokens = dict(zip(table["document"].to_pylist(), table["tokens"].to_pylist(), strict=True))
        seen, shown = dict[str, set[int]](), dict[int, int]()
        for document in tokens:
            place = places(corpus, document)[-1]
            found = windows(dataset, place, context_tokens, 1, packing)
            (window,) = found  # no text of these has a single token
            assert any(part.document == document and part.begins for part in window.segments)
            shown[window.number] = place.row
        first = windows(dataset, places(corpus, next(iter(tokens)))[-1], context_tokens, 10**6, packing)
        for window in first:
            assert window.padding + sum(len(part.tokens) for part in window.segments) == context_tokens + 1
            assert len(window.segments) == 1 or packing != "one_document"
            for part in window.segments:
                behind = part.skipped + len(part.tokens)
                assert part.tokens == tokens[part.document][part.skipped : behind]
                assert part.positions == (0, len(part.tokens) - 1)
                labels, so_far = set(range(part.skipped + 1, behind)), seen.setdefault(part.document, set())
                assert not labels & so_far
                so_far |= labels
        if first[0].number == min(shown):  # the first document's window is the shard's first one, so all were shown
            assert {name: len(labels) + 1 for name, labels in seen.items()} == {n: len(t) for n, t in tokens.items()}
        else:
            assert packing == "best_fit"


def test_pieces_joined_are_the_text(corpus: Corpus) -> None:
    look = peek(corpus, Wanted("folder/a/06.txt"))
    (document,) = look.documents
    text = next(row["text"] for table in corpus.documents.tables() for row in table.to_pylist()
                if row["document"] == "folder/a/06.txt")  # fmt: skip
    spelt = "".join(piece.text for piece in document.pieces)
    assert spelt.removesuffix("<|end|>") == text[: len(spelt.removesuffix("<|end|>"))]
    assert len(spelt) > 50


def test_the_same_seed_draws_the_same_documents_and_another_one_others(corpus: Corpus) -> None:
    assert chosen(corpus, 5, 3) == chosen(corpus, 5, 3) != chosen(corpus, 5, 4)
    everything = chosen(corpus, 10**6, 0)
    assert sorted(everything) == sorted(name for t in corpus.documents.tables() for name in t["document"].to_pylist())


def test_a_lost_document_says_why_and_what_stays_for_it(corpus: Corpus) -> None:
    (copy,) = peek(corpus, Wanted("folder/c/copy of 03.txt")).documents
    assert (copy.state, copy.facts["rule"], copy.facts["kept"]) == ("dropped", "copies <= 1", "folder/a/03.txt")
    assert copy.text, "its unit still has the text"
    (short,) = peek(corpus, Wanted("folder/b/short 1.txt")).documents
    assert (short.state, short.facts["rule"], short.facts["value"]) == ("dropped", "characters >= 40", 10.0)
    (unread,) = peek(corpus, Wanted("folder/c/latin.txt")).documents
    assert (unread.state, unread.facts["reason"]) == ("quarantined", "not UTF-8: byte 0xf1 at offset 2")
    assert peek(corpus, Wanted("folder/c/latin.txt")).rows == []


def test_a_document_s_own_copies_come_before_what_was_dropped_next_to_it(corpus: Corpus) -> None:
    found = [row["document"] for row in neighbours(corpus, "folder/a/03.txt")]
    assert found[0] == "folder/c/copy of 03.txt"
    beside = {row["document"] for row in neighbours(corpus, "folder/b/19.txt")}
    assert {f"folder/b/short {number}.txt" for number in (1, 2, 3)} | {"folder/b/04.txt"} <= beside


@pytest.mark.parametrize(
    ("asked", "near"), [("folder/a/3.txt", "folder/a/03.txt"), ("03.txt", "folder/a/03.txt"), ("latin", "latin.txt")]
)
def test_an_id_that_is_not_there_is_answered_with_near_ones(corpus: Corpus, asked: str, near: str) -> None:
    with pytest.raises(DataError, match="has no document") as refused:
        peek(corpus, Wanted(asked))
    assert near in refused.value.allowed


def test_what_is_no_data_set_is_refused_as_such_and_a_part_of_one_is_taken(shown: Result, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="is no data set"):
            open_corpus(folder)
    for part in ("documents", "tokens/train", "."):
        assert open_corpus(shown.folder / part).folder == shown.folder


def test_a_document_that_broke_a_rule_is_shown_by_what_is_kept_of_its_text(shown: Result, tmp_path: Path) -> None:
    copied = tmp_path / "copied"  # without the units, in which texts are looked for otherwise
    shutil.copytree(shown.folder, copied)
    lost = peek(open_corpus(copied), Wanted("folder/b/short 2.txt"))
    assert lost.documents[0].text == "too short too short "
    assert "too short too short" in peek_page(lost, ids=False)
    dropped = ShardDataset(copied / "dropped").table(0)
    rows = [{**row, "text": HARMFUL + ESCAPES} for row in dropped.to_pylist()]
    _replaced(copied, pa.Table.from_pylist(rows, dropped.schema))
    harmful = peek(open_corpus(copied), Wanted("folder/b/short 2.txt"))
    page = peek_page(harmful, ids=False)
    assert "<script" not in page
    assert str(escape(HARMFUL)) in page
    terminal = io.StringIO()
    Console(file=terminal, width=500).print(screen(harmful, ids=False))
    printed = terminal.getvalue()
    assert HARMFUL in printed
    assert not {"\x1b", "\x07", "\x9b"} & set(page + printed)
    _replaced(copied, dropped.drop_columns(["text"]))  # of an earlier version
    assert peek(open_corpus(copied), Wanted("folder/b/short 2.txt")).documents[0].text is None
    assert peek(open_corpus(copied), Wanted("folder/b/short 2.txt")).documents[0].facts["rule"] == "characters >= 40"


def _replaced(folder: Path, dropped: pa.Table) -> None:
    remove_dataset(folder / "dropped")
    with ShardWriter(folder / "dropped", dropped.schema, source={}, shard_size=10**6) as writer:
        writer.write(dropped)


@pytest.mark.parametrize("ids", [False, True])
def test_the_page_shows_harmful_texts_as_texts_and_ids_on_demand(corpus: Corpus, ids: bool) -> None:
    look = peek(corpus, Wanted("folder/a/00.txt"))
    page = peek_page(look, ids=ids)
    assert "<script" not in page
    shown = re.sub(r"<sub>\d+</sub>|</?span[^>]*>", "", page.replace("⏎\n", "\n"))
    assert HARMFUL.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;") in shown
    assert (f"<sub>{look.documents[0].pieces[0].id}</sub>" in page) is ids


@pytest.mark.parametrize("name", ["images", "captioned images", "audio", "series"])
def test_values_are_shown_with_shape_statistics_and_as_a_picture(
    name: str, tmp_path: Path, serial_context: Callable[..., Context]
) -> None:
    case = CASES[name]
    case.write(tmp_path / "raw")
    spec, folder = case.spec(tmp_path / "raw"), tmp_path / "made"
    commit_result(folder, ingest_key(spec, "content"), ingest(spec, {}, serial_context(folder)))
    corpus = open_corpus(folder)
    (document,) = peek(corpus, Wanted(count=1)).documents
    (stored,) = (place.values for place in places(corpus, document.id) if place.dataset.startswith("samples/"))
    values = document.values
    assert values is not None
    assert (values.smallest, values.largest) == (min(stored["values"]), max(stored["values"]))
    assert values.mean == pytest.approx(sum(stored["values"]) / len(stored["values"]))
    assert document.text == stored.get("caption")
    assert bool(document.text) == ("caption" in name)
    page = peek_page(peek(corpus, Wanted(document.id)), ids=False)
    if name == "series":
        assert page.count("<polyline") == values.shape[0] == 2
        assert png(values) == ""
        return
    assert png(values) in page
    picture = Image.open(io.BytesIO(base64.b64decode(png(values).partition(",")[2])))
    scale = picture.width // values.shape[2]
    if "image" in name:
        red = [stored["values"][row * 8 + column] for row in range(8) for column in range(8)]
        got = [picture.getpixel((column * scale, row * scale))[0] for row in range(8) for column in range(8)]
        assert got == red


def test_the_same_look_does_not_change_what_is_looked_at(shown: Result, corpus: Corpus) -> None:
    before = {path: path.stat().st_mtime_ns for path in shown.folder.rglob("*")}
    peek_page(peek(corpus, Wanted()), ids=False)
    assert {path: path.stat().st_mtime_ns for path in shown.folder.rglob("*")} == before
    assert ShardDataset(shown.folder / "documents").rows == corpus.documents.rows
