"""Steps repair texts, and touch nothing else."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import ftfy
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources.modalities import ingest_key
from foundation_core.data.steps.chain import steps_of, take_steps
from foundation_core.data.steps.control import ControlCharacters
from foundation_core.data.steps.lines import Lines
from foundation_core.data.steps.repair import EncodingRepair
from foundation_core.data.steps.step import Step
from foundation_core.errors import ConfigError
from foundation_core.specs import IngestSpec, QualitySpec
from foundation_core.specs.cleaning import (
    END_MARKS,
    POLICY_PHRASES,
    CleaningSpec,
    ControlCharactersSpec,
    EncodingRepairSpec,
    LinesSpec,
    PersonalSpec,
)
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest

EVERYTHING = CleaningSpec(
    encoding=EncodingRepairSpec(use=True),
    control=ControlCharactersSpec(use=True, zero_width=True, directions=True),
    lines=LinesSpec(use=True, needs_end_mark=False),
    personal=PersonalSpec(use=True),
)
SPANISH = ["El camión español llegó mañana.", "¿Qué pasó después? «Nada», dijo ella.", "La acción costó 20 €."]


def column(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def changed(step: Step, texts: list[str]) -> tuple[list[str], dict[str, list[int]]]:
    stepped = step(column(texts))
    assert stepped.texts.type == pa.large_string()
    assert all(counts.type == pa.int64() and len(counts) == len(texts) for counts in stepped.changes.values())
    return stepped.texts.to_pylist(), {kind: counts.to_pylist() for kind, counts in stepped.changes.items()}


# --------------------------------------------------------------------------------------------------------- encoding


@pytest.mark.parametrize("table", ["latin-1", "windows-1252"])
@pytest.mark.parametrize("text", SPANISH)
def test_text_that_was_decoded_by_the_wrong_table_is_repaired(text: str, table: str) -> None:
    broken = text.encode().decode(table, "replace")
    assert broken != text
    if "\ufffd" in broken or not broken.isprintable():
        broken = text.encode().decode("latin-1")
    assert changed(EncodingRepair(), [broken]) == ([text], {"repaired_lines": [1]})


def test_text_that_is_right_stays_as_it_is_though_ftfy_would_change_it() -> None:
    right = [
        *SPANISH,
        "",
        "plain",
        "“curled” ‘quotes’",
        "ﬁne ligatures",
        "ＷＩＤＥ letters",
        "a &amp; b",
        "a\x1b[1mb\x07",
    ]
    assert changed(EncodingRepair(), right) == (right, {"repaired_lines": [0] * len(right)})
    assert sum(ftfy.fix_text(text) != text for text in right) >= 5, "the control: its defaults change them"


def test_a_line_is_repaired_by_itself_beside_lines_that_are_right() -> None:
    text = "El camiÃ³n.\nEl camión.\nÃ¡rbol y acciÃ³n\n"
    assert changed(EncodingRepair(), [text, "x"]) == (
        ["El camión.\nEl camión.\nárbol y acción\n", "x"],
        {"repaired_lines": [2, 0]},
    )


@given(texts=st.lists(st.text(st.characters(codec="ascii"), max_size=40), max_size=5))
def test_what_is_ascii_is_never_repaired(texts: list[str]) -> None:
    assert changed(EncodingRepair(), texts)[0] == texts


def test_the_cheap_test_hides_nothing_that_ftfy_would_repair() -> None:
    lines = [chr(first) + chr(second) + "a" for first in range(0xC0, 0x100) for second in range(0x80, 0x100)]
    bare = ftfy.TextFixerConfig(
        unescape_html=False, remove_terminal_escapes=False, fix_latin_ligatures=False, fix_character_width=False,
        uncurl_quotes=False, fix_line_breaks=False, remove_control_chars=False, normalization="NFC",
    )  # fmt: skip
    by_library = [ftfy.fix_text(line, bare) for line in lines]
    assert changed(EncodingRepair(), lines)[0] == by_library
    assert by_library != lines


# ---------------------------------------------------------------------------------------------- control characters


def test_control_characters_are_removed_but_newline_and_tab() -> None:
    every = "".join(map(chr, range(0xA1)))
    (text,), counts = changed(ControlCharacters(ControlCharactersSpec(use=True)), [every])
    breaks = "\v\f\x85"
    kept = [character for character in every if character.isprintable() or character in "\t\n\xa0"]
    assert text == "".join("\n" if c in breaks else c for c in every if c in kept or c in breaks)
    assert counts == {"breaks": [3], "control": [len(every) - len(kept) - 3]}


@pytest.mark.parametrize(
    ("characters", "field"),
    [("\u200b\u2060\ufeff\xad", "zero_width"), ("\u200e\u200f\u202a\u202e\u2066\u2069\u061c", "directions")],
)
def test_invisible_characters_go_only_where_the_spec_says_so(characters: str, field: str) -> None:
    texts = [f"a{character}b" for character in characters]
    on = ControlCharactersSpec.model_validate({"use": True, field: True})
    assert changed(ControlCharacters(ControlCharactersSpec(use=True)), texts)[0] == texts
    assert changed(ControlCharacters(on), texts)[0] == ["ab"] * len(texts)
    assert changed(ControlCharacters(on), texts)[1][field] == [1] * len(texts)


def test_joiners_of_scripts_and_emoji_stay() -> None:
    texts = ["می\u200cخواهم", "👩\u200d💻"]
    spec = ControlCharactersSpec(use=True, zero_width=True, directions=True)
    assert changed(ControlCharacters(spec), texts)[0] == texts


# ------------------------------------------------------------------------------------------------------------ lines

PIECES = st.sampled_from(
    ["The cat sat", "on it", ".", "!", "...", '"', " ", "\n", "\n\n", "[12]", "[edit]", "Turn on JavaScript", "x" * 12,
     "Read our Privacy Policy.", "\u2003wide\u00a0space", "We use cookies here.", "a b c."]
)  # fmt: skip
LINES = LinesSpec(use=True, most_word_characters=11)


def by_definition(text: str, spec: LinesSpec) -> str:
    """C4's rules on lines, line by line."""
    kept, phrases = [], POLICY_PHRASES["en"]
    for line in text.split("\n"):
        line, words = line.strip(), line.split()
        cut = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", line) if spec.citations else line
        ends = not spec.needs_end_mark or (cut.endswith(END_MARKS["en"]) and not cut.endswith("..."))
        short = len(words) < spec.least_words or not line
        long = any(len(word) > spec.most_word_characters for word in words)
        if ends and not short and not long and not any(word in cut.lower() for word in ("javascript", *phrases)):
            kept.append(cut)
    return "\n".join(kept)


@given(
    texts=st.lists(st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=20), max_size=5),
    ends=st.booleans(),
    citations=st.booleans(),
)
def test_lines_stay_or_go_as_the_definition_says_and_all_are_counted(
    texts: list[str], ends: bool, citations: bool
) -> None:
    spec = LINES.model_copy(update={"needs_end_mark": ends, "citations": citations})
    found, counts = changed(Lines(spec, "en"), texts)
    assert found == [by_definition(text, spec) for text in texts]
    for place, text in enumerate(texts):
        gone = sum(of[place] for kind, of in counts.items() if kind != "citations")
        staying = found[place].count("\n") + 1
        assert text.count("\n") + 1 - gone in ({staying} if found[place] else {0, staying})


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("   ", "blank"),
        ("Home About Contact", "no_end_mark"),
        ("It goes on like this...", "no_end_mark"),
        ("Read more.", "few_words"),
        ("A " + "x" * 1001 + " of a word.", "long_word"),
        ("Please enable JAVASCRIPT in your browser.", "script_word"),
        ("By reading you accept our Terms of Use.", "policy"),
    ],
)
def test_each_rule_takes_its_line_and_leaves_prose(line: str, kind: str) -> None:
    texts, counts = changed(Lines(LinesSpec(use=True), "en"), [f"The house has a garden.\n{line}\nIt is “green.”"])
    assert texts == ["The house has a garden.\nIt is “green.”"]
    assert {name: of for name, of in counts.items() if of != [0]} == {kind: [1]}


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("es", "Este sitio utiliza cookies propias."),
        ("pt", "Leia a nossa Política de Privacidade."),
        ("fr", "Consultez nos Mentions légales ici."),
        ("de", "Lesen Sie unsere Datenschutzerklärung hier."),
        ("it", "Leggi la nostra informativa sui cookie."),
    ],
)
def test_policies_are_known_in_the_language_of_the_texts_and_in_no_other(language: str, line: str) -> None:
    spec = IngestSpec(
        cleaning=CleaningSpec(lines=LinesSpec(use=True)), quality=QualitySpec.model_validate({"language": language})
    )
    (step,) = steps_of(spec)
    assert changed(step, [line])[0] == [""]
    assert changed(Lines(LinesSpec(use=True), "en"), [line])[0] == [line]
    assert changed(Lines(LinesSpec(use=True, policies=False), spec.quality.language), [line])[0] == [line]


def test_lines_end_as_the_language_ends_them() -> None:
    line = "Ella dijo que «sí, mañana»"
    assert changed(Lines(LinesSpec(use=True), "es"), [line])[0] == [line]
    assert changed(Lines(LinesSpec(use=True), "en"), [line])[0] == [""]
    assert changed(Lines(LinesSpec(use=True, end_marks=("»",)), "en"), [line])[0] == [line]


# ------------------------------------------------------------------------------------------------------------ chain


def test_nothing_is_done_unless_the_spec_says_so() -> None:
    assert steps_of(IngestSpec()) == ()
    assert [step.name for step in steps_of(IngestSpec(cleaning=EVERYTHING))] == [
        "encoding", "control", "lines", "personal",
    ]  # fmt: skip


def test_each_step_works_on_what_the_one_before_it_left() -> None:
    text = "Escriba a ana@exam\u200bple.org en el camiÃ³n.\nNo.\n"
    stepped = take_steps(steps_of(IngestSpec(cleaning=EVERYTHING)), column([text, "Nothing to do here."]))
    assert stepped.texts.to_pylist() == ["Escriba a <EMAIL> en el camión.", "Nothing to do here."]
    counts = {kind: of.to_pylist() for kind, of in stepped.changes.items()}
    assert {kind: of for kind, of in counts.items() if of != [0, 0]} == {
        "encoding/repaired_lines": [1, 0], "control/zero_width": [1, 0], "lines/blank": [1, 0],
        "lines/few_words": [1, 0], "personal/email": [1, 0],
    }  # fmt: skip


@given(texts=st.lists(st.text(max_size=40), max_size=6), cut=st.integers(0, 6))
def test_a_batch_cut_anywhere_gives_the_same_texts_and_counts(texts: list[str], cut: int) -> None:
    steps = steps_of(IngestSpec(cleaning=EVERYTHING))
    whole = column(texts)
    together, parts = take_steps(steps, whole), [take_steps(steps, whole[:cut]), take_steps(steps, whole[cut:])]
    assert pa.concat_arrays([part.texts for part in parts]).equals(together.texts)
    for kind, counts in together.changes.items():
        assert pa.concat_arrays([part.changes[kind] for part in parts]).equals(counts)


def test_real_source_goes_through_all_steps_and_a_second_time_nothing_changes() -> None:
    texts = [path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))]
    steps = steps_of(IngestSpec(cleaning=EVERYTHING.model_copy(update={"lines": LinesSpec()})))
    once = take_steps(pickle.loads(pickle.dumps(steps)), column(texts))
    assert once.texts.to_pylist() != texts
    assert take_steps(steps, once.texts).texts.equals(once.texts)


def test_what_decides_a_changed_text_is_in_the_key() -> None:
    off, on = (ingest_key(IngestSpec(cleaning=cleaning), "content") for cleaning in (CleaningSpec(), EVERYTHING))
    assert set(on.parts["libraries"]) - set(off.parts["libraries"]) == {"ftfy", "python-stdnum", "phonenumbers"}
    assert on.digest != off.digest


def test_an_ingestion_takes_the_steps_and_counts_what_they_changed(
    tmp_path: Path, serial_context: Callable[[Path], Context]
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.txt").write_text(f"Write to person{number}@example.org about the matter {number}.\n")
    (folder / "nothing.txt").write_text("\x07\x07")
    source = {"kind": "folder", "path": str(folder), "pattern": "*.txt"}
    made = {}
    for use in (True, False):
        cleaning = {"control": {"use": use}, "personal": {"use": use}}
        body = {"source": source, "cleaning": cleaning, "tokenizer": {"vocabulary": 262}}
        made[use] = ingest(IngestSpec.model_validate(body), {}, serial_context(tmp_path / str(use))).summary
    rows = [row for table in ShardDataset(tmp_path / "True" / "documents").tables() for row in table.to_pylist()]
    assert all("<EMAIL>" in row["text"] and "@" not in row["text"] for row in rows)
    assert all(row["bytes"] == len(row["text"].encode()) for row in rows)
    assert made[True]["cleaned"]["personal/email"] == 40
    assert made[True]["dropped_by_rule"] == {"characters >= 1": 1}
    assert "cleaned" not in made[False]
    assert made[False]["documents"]["kept"] == 41


def test_cleaning_is_refused_where_an_item_is_more_than_its_caption(
    tmp_path: Path, serial_context: Callable[[Path], Context]
) -> None:
    spec = IngestSpec.model_validate(
        {"source": {"kind": "digits_with_captions"}, "cleaning": {"control": {"use": True}}}
    )
    with pytest.raises(ConfigError, match=r"cleaning changes texts.*captions"):
        ingest(spec, {}, serial_context(tmp_path))
