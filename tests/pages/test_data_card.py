"""A data card says what the data sets of an ingestion hold: every figure of it, counted again by hand."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from markupsafe import escape

from foundation_core.data.rules.filters import DROPPED
from foundation_core.data.shards.dataset import ShardDataset, ShardWriter, remove_dataset
from foundation_core.data.split import SPLITS
from foundation_core.data.tokens.byte_level import load_tokenizer
from foundation_core.errors import SetupError
from foundation_core.events import read_events
from foundation_core.pages import texts
from foundation_core.pages.card import CARD_FOLDER, MARKDOWN_FILE, PAGE_FILE, data_card
from foundation_core.pages.making import limits, steps
from foundation_core.pages.reading import open_corpus
from foundation_core.pages.survey import Survey, survey
from foundation_core.pages.vocabulary import Spelling
from foundation_core.specs import IngestSpec, SourceSpec
from foundation_core.stages.contract import Context
from foundation_core.store import Result
from tests.support.shown import HARMFUL, ODD, ingested, write_raw


@pytest.fixture(scope="module")
def facts(shown: Result) -> Survey:
    return survey(open_corpus(shown.folder), shown.summary)


@pytest.fixture
def copied(shown: Result, tmp_path: Path) -> Result:
    """The same result in a folder of its own, to be changed."""
    return replace(shown, folder=shutil.copytree(shown.folder, tmp_path / "copied"))


def rows(result: Result, name: str) -> list[dict[str, Any]]:
    return [row for table in ShardDataset(result.folder / name).tables() for row in table.to_pylist()]


def test_losses_lead_from_what_went_in_to_what_stays_one_rule_after_the_other(shown: Result, facts: Survey) -> None:
    left = shown.summary["documents"]["in"]
    for loss in facts.losses:
        left -= loss.documents
        assert loss.left == left
    assert left == shown.summary["documents"]["kept"]
    unread, *rules = facts.losses
    assert (unread.documents, unread.values) == (1, None)
    assert {loss.rule: loss.documents for loss in rules} == shown.summary["dropped_by_rule"]
    assert len(rules) == 3


def test_the_values_of_what_was_dropped_are_those_of_its_rows(shown: Result, facts: Survey) -> None:
    for loss in facts.losses[1:]:
        values = sorted(row["value"] for row in rows(shown, "dropped") if row["rule"] == loss.rule)
        assert loss.values is not None
        assert (loss.values[0], loss.values[2]) == (values[0], values[-1])
        assert loss.histogram is not None
        edges, counts = loss.histogram.edges, loss.histogram.counts
        assert sum(counts) == len(values)
        assert (edges[0] <= values[0], values[-1] <= edges[-1]) == (True, True)


def test_lengths_count_every_document_in_the_bin_that_holds_it(shown: Result, facts: Survey) -> None:
    tokens = [len(row["tokens"]) for split in SPLITS for row in rows(shown, f"tokens/{split}")]
    for unit, lengths in (("bytes", [row["bytes"] for row in rows(shown, "documents")]), ("tokens", tokens)):
        histogram = facts.lengths[unit]
        counted = [
            sum(low * (1 - 1e-9) <= length < high * (1 - 1e-9) for length in lengths)
            for low, high in zip(histogram.edges, histogram.edges[1:], strict=False)
        ]
        assert list(histogram.counts) == counted
        assert len(histogram.counts) > 3


def test_tokens_by_group_and_split_are_those_of_the_rows(shown: Result, facts: Survey) -> None:
    counted = Counter[tuple[str, str]]()
    for split in SPLITS:
        for row in rows(shown, f"tokens/{split}"):
            counted[row["group"], split] += len(row["tokens"])
    assert {(group, split): n for group, of in facts.groups.items() for split, n in of.items()} == counted
    totals = [sum(of.values()) for of in facts.groups.values()]
    assert totals == sorted(totals, reverse=True)
    assert sum(totals) == shown.summary["tokens"] == sum(facts.sources["folder"].values())


def test_fertility_is_tokens_for_each_word_and_compression_bytes_for_each_token(shown: Result, facts: Survey) -> None:
    for split in SPLITS:
        words = sum(len(re.findall(r"\w+", row["text"])) for row in rows(shown, "documents") if row["split"] == split)
        tokens = [len(row["tokens"]) - 1 for row in rows(shown, f"tokens/{split}")]
        assert facts.splits[split].tokens_per_word == pytest.approx(sum(tokens) / words)
        assert facts.splits[split].bytes_per_token == shown.summary["splits"][split]["text_bytes"] / (
            sum(tokens) + len(tokens)
        )
    assert facts.sample == shown.summary["documents"]["kept"]


def test_of_a_large_corpus_every_nth_text_is_looked_at(shown: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, kept = open_corpus(shown.folder), [row["document"] for row in rows(shown, "documents")]
    monkeypatch.setattr(texts, "SAMPLE_BYTES", shown.summary["bytes"] // 5)
    assert corpus.documents.shards > 1
    assert texts.sampled(corpus)["document"].to_pylist() == kept[::5]


def test_a_cluster_is_all_that_was_dropped_for_what_stays_over_all_steps(facts: Survey) -> None:
    found = {cluster.survivor: cluster for cluster in facts.duplicates.biggest}
    assert set(found) == {"folder/a/0_near_04.txt", "folder/a/03.txt"}
    assert (facts.duplicates.clusters, facts.duplicates.copies) == (2, 3)
    chain = found["folder/a/0_near_04.txt"]
    assert {copy.document for copy in chain.examples} == {"folder/b/04.txt", "folder/c/copy of 04.txt"}
    assert facts.duplicates.biggest[0] is chain, "the biggest comes first"


def test_both_texts_of_a_copy_begin_as_they_do_as_long_as_the_units_are_there(copied: Result) -> None:
    raw = {row["document"]: row["text"] for row in rows(copied, "documents")}
    (chain, *_) = survey(open_corpus(copied.folder), copied.summary).duplicates.biggest
    assert raw["folder/a/0_near_04.txt"].startswith(chain.text or "nothing")
    assert all(copy.text == chain.text for copy in chain.examples)
    shutil.rmtree(copied.folder / "units")
    (chain, *_) = survey(open_corpus(copied.folder), copied.summary).duplicates.biggest
    assert chain.text is not None
    assert [copy.text for copy in chain.examples] == [None, None]
    assert "Its text is no longer beside the result" in data_card(copied).page


def test_the_used_vocabulary_is_what_the_training_split_holds(shown: Result, facts: Survey) -> None:
    counts = Counter(token for row in rows(shown, "tokens/train") for token in row["tokens"])
    assert facts.vocabulary is not None
    assert (facts.vocabulary.used, facts.vocabulary.entries) == (len(counts), 300)
    assert facts.vocabulary.used_once == sum(count == 1 for count in counts.values())
    most = counts.most_common(1)[0][1]
    assert facts.vocabulary.frequent[0][1] == most / counts.total()
    assert "<|end|>" not in facts.vocabulary.longest


def test_a_token_is_spelt_as_its_text_and_a_part_of_a_character_as_its_bytes(shown: Result) -> None:
    tokenizer = load_tokenizer(shown.folder / "tokenizer.json")
    spelling = Spelling(tokenizer)
    tokens = tokenizer.encode(f"kamo rite {ODD}").ids
    spelt = "".join(map(spelling, tokens))
    assert spelt.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1").decode() == (
        f"kamo rite {ODD}"
    )
    assert spelt.startswith("kamo rite na")
    assert "\\x" in spelt


def test_what_could_not_be_read_is_named_with_its_reason(facts: Survey) -> None:
    (reason,) = facts.quarantine
    assert (reason.reason, reason.documents) == ("not UTF-8", 1)
    assert reason.examples == (("folder/c/latin.txt", "not UTF-8: byte 0xf1 at offset 2"),)


def test_the_page_asks_for_nothing_runs_nothing_and_shows_harmful_texts_as_texts(copied: Result) -> None:
    dropped = rows(copied, "dropped")
    for row in dropped:
        row["kept"] = "folder/a/00.txt"  # the harmful text is shown, as that of the copy that stays
    _replace(copied, pa.Table.from_pylist(dropped, DROPPED))
    card = data_card(copied)
    assert not re.findall(r"(?i)<(?:script|link|iframe|object|img)\b", card.page)
    assert not [link for link in re.findall(r"(?:href|src)=.(.)", card.page) if link != "#"]
    assert not re.findall(r"url\((?!#)|@import", card.page)
    assert card.page.count("</style>") == 1 + card.page.count('<style type="text/css">')
    assert str(escape(HARMFUL)) in card.page
    assert "\n    </style><script>" in card.markdown, "in Markdown it is indented code"


def test_columns_that_are_missing_or_new_leave_a_card(copied: Result) -> None:
    dropped = pa.Table.from_pylist(rows(copied, "dropped"), DROPPED)
    without = dropped.drop_columns(["value", "kept"]).append_column("score", pa.array([1] * len(dropped)))
    _replace(copied, without)
    facts = survey(open_corpus(copied.folder), copied.summary)
    assert facts.duplicates.copies == 0
    assert [loss.values for loss in facts.losses] == [None] * 4
    assert [loss.documents for loss in facts.losses[1:]] == list(copied.summary["dropped_by_rule"].values())
    card = data_card(copied)
    assert "No document was dropped as a copy" in card.markdown


def _replace(result: Result, dropped: pa.Table) -> None:
    remove_dataset(result.folder / "dropped")
    with ShardWriter(result.folder / "dropped", dropped.schema, source={}, shard_size=10**6) as writer:
        writer.write(dropped)


def test_sources_and_licences_are_counted_where_the_documents_state_them(copied: Result) -> None:
    for name in ("documents", *(f"tokens/{split}" for split in SPLITS)):
        table = pa.concat_tables(ShardDataset(copied.folder / name).tables())
        of_c = pa.array([row.startswith("folder/c/") for row in table["document"].to_pylist()])
        for column, values in (("source", ("shelf", "attic")), ("licence", ("CC0-1.0", "MIT"))):
            stated = pa.array([values[each] for each in of_c.to_pylist()])
            place = table.schema.get_field_index(column)
            table = table.append_column(column, stated) if place < 0 else table.set_column(place, column, stated)
        remove_dataset(copied.folder / name)
        with ShardWriter(copied.folder / name, table.schema, source={}, shard_size=10**6) as writer:
            writer.write(table)
    facts = survey(open_corpus(copied.folder), copied.summary)
    assert {name: sum(of.values()) for name, of in facts.sources.items()} == {
        "shelf": sum(sum(facts.groups[group].values()) for group in "ab"), "attic": sum(facts.groups["c"].values()),
    }  # fmt: skip
    documents = Counter(row["licence"] for row in rows(copied, "documents"))
    assert facts.licences == dict(documents.most_common())
    assert len(facts.licences) == 2


def test_without_a_library_for_plots_or_languages_the_card_does_without_them(
    shown: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = data_card(shown)
    assert whole.page.count("<svg") == 4
    monkeypatch.setattr("foundation_core.pages.charts.find_spec", lambda name: None)
    monkeypatch.setattr("foundation_core.data.rules.language._detector", _no_detector)
    bare = data_card(shown)
    assert "<svg" not in bare.page
    assert "<h2>Languages</h2>" in whole.page
    assert "<h2>Languages</h2>" not in bare.page
    assert "Loss by loss" in bare.page


def _no_detector() -> Any:
    raise SetupError("not installed")


def test_the_card_names_what_was_done_in_its_order_and_what_nobody_did(shown: Result) -> None:
    spec = IngestSpec.model_validate(shown.parts["spec"])
    exact, near = "of exact copies (the same content) one was kept", "of texts alike by 0.8 or more one was kept"
    said = steps(spec, shown.summary)
    assert f"Copies: {exact}; {near}." in said
    assert "Filters: `characters >= 40`." in said
    assert "Rules: none." in said
    card = data_card(shown)
    places = [card.markdown.index(f"- {step}") for step in said]
    assert places == sorted(places)
    assert card.page.count("<li>Filters: <code>characters &gt;= 40</code>.</li>") == 1
    assert limits(spec) == ["Nobody searched it for personal data: names, addresses, faces and voices are still in it."]
    assert limits(spec)[0] in card.markdown


def test_each_step_that_is_switched_on_changes_what_the_card_says(shown: Result) -> None:
    off = IngestSpec(exact_dedup=False)
    switched = {
        "cleaning.personal.use": ("personal data and secrets are replaced", "Of personal data only secret, email"),
        "quality.gopher.use": ("texts in en; Gopher's rules for prose", ""),
        "quality.least_language": ("probability of en >= 1", ""),
        "exact_dedup": ("of exact copies", "Only exact copies were looked for"),
        "paragraph_dedup.use": ("of the same paragraph the first", ""),
        "fuzzy_dedup.use": ("of texts alike by 0.8", ""),
    }
    for name, texts_of in switched.items():
        body = off.model_dump()
        *path, last = name.split(".")
        part = body
        for each in path:
            part = part[each]
        part[last] = True
        on = IngestSpec.model_validate(body)
        for said, before, after in zip(
            texts_of,
            (steps(off, shown.summary), limits(off)),
            (steps(on, shown.summary), limits(on)),
            strict=True,
        ):
            assert said in "\n".join(after)
            assert not said or said not in "\n".join(before), "a negative control"
    assert "Copies were not looked for" in limits(off)[1]


def test_how_finely_the_tokenizer_cuts_is_told_for_each_language(shown: Result) -> None:
    fertility = {"all": {"texts": 7, "words": 90, "tokens_per_word": 1.234, "bytes_per_token": 3.456},
                 "es": {"texts": 5, "words": 70, "tokens_per_word": 2.345, "bytes_per_token": 4.567}}  # fmt: skip
    summary = {**shown.summary, "tokenizer": {**shown.summary["tokenizer"], "fertility": fertility}}
    card = data_card(replace(shown, summary=summary))
    for row in ("| all | 7 | 1.23 | 3.46 |", "| es | 5 | 2.35 | 4.57 |"):
        assert row in card.markdown
        assert row not in data_card(shown).markdown, "a negative control"
        assert "".join(f'<td class="number">{figure}</td>' for figure in row.split(" | ")[1:3]) in card.page


def test_the_card_names_what_later_stages_are_keyed_on(shown: Result) -> None:
    card = data_card(shown)
    for digest in (shown.content, shown.outputs["tokenizer.json"], *shown.outputs.values()):
        assert digest in card.markdown
        assert digest in card.page


def test_an_ingestion_writes_its_card_reports_it_and_makes_the_same_again(shown: Result) -> None:
    card = data_card(shown)
    assert (shown.folder / CARD_FOLDER / MARKDOWN_FILE).read_text() == card.markdown
    assert (shown.folder / CARD_FOLDER / PAGE_FILE).read_text() == card.page
    reported = [event for _, event in read_events(shown.folder) if event["kind"] == "artifact"]
    assert [(Path(event["path"]).name, event["folder"]) for event in reported] == [
        (MARKDOWN_FILE, CARD_FOLDER), (PAGE_FILE, CARD_FOLDER),
    ]  # fmt: skip


def test_a_card_that_cannot_be_made_costs_no_corpus(
    tmp_path: Path, serial_context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("a column of tomorrow")

    monkeypatch.setattr("foundation_core.stages.ingest_summary.write_card", fail)
    write_raw(tmp_path / "raw")
    source = SourceSpec(kind="folder", path=str(tmp_path / "raw"), pattern="**/*.txt")
    result = ingested(tmp_path, serial_context, source=source)
    said = [event["text"] for _, event in read_events(result.folder) if event["kind"] == "say"]
    assert said[-1].startswith("no data card: KeyError: 'a column of tomorrow'")
    assert ShardDataset(result.folder / "tokens" / "train").rows > 0
