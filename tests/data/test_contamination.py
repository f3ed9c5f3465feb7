"""Decontamination: what an evaluation set asks is found however a document says it, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.data.copies.contamination import Checked, check_against
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources.modalities import ingest_key
from foundation_core.data.units.work import Unit
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import DecontaminationSpec, EvaluationSetSpec, IngestSpec, SourceSpec
from foundation_core.stages.ingest import ingest
from tests.support.ingestion import ProcessPool

Build = Callable[..., Any]
QUESTION = (
    "A farmer's well-known market sells 25 melons; on Tuesday he brings home 7 of them, écoutez bien, and he asks:"
    " how many did the others buy before the rain came?"
)
WORDS = "a farmer s well known market sells 25 melons on tuesday he brings home 7 of them".split()
FILLER = [f"filler{number}" for number in range(40)]


def checked(folder: Path, texts: Sequence[str], **fields: Any) -> Checked:
    """The rule of one set of these texts."""
    folder.mkdir(exist_ok=True)
    (folder / "set.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    one = EvaluationSetSpec(name="farm", path=str(folder / "set.jsonl"))
    return check_against(DecontaminationSpec(sets=(one,), **fields), Unit(folder / "unit", "identity"))


def found(rules: Checked, *texts: str) -> list[float]:
    numbers: list[float] = rules.rules[0].measure(pa.array(texts, pa.large_string())).to_pylist()
    return numbers


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Checked:
    return checked(tmp_path_factory.mktemp("farm"), [QUESTION])


@given(before=st.lists(st.sampled_from(FILLER)), behind=st.lists(st.sampled_from(FILLER)), data=st.data())
def test_thirteen_words_are_found_wherever_they_lie_and_however_they_are_written(
    farm: Checked, before: list[str], behind: list[str], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(WORDS) - 13))
    between = data.draw(
        st.lists(st.sampled_from([" ", "\n", "\n\n", ", ", " — ", "...", "'"]), min_size=12, max_size=12)
    )
    case = data.draw(st.sampled_from([str.upper, str.lower, str.title]))
    run = WORDS[first : first + 13]
    planted = case("".join(word + mark for word, mark in zip(run, [*between, ""], strict=True)))
    document = " ".join([*before, planted, *behind])
    assert found(farm, "", document, "nothing of it") == [0, 1, 0]


@given(data=st.data())
def test_twelve_words_of_thirteen_are_not_found(farm: Checked, data: st.DataObject) -> None:
    first, changed = data.draw(st.integers(0, len(WORDS) - 13)), data.draw(st.integers(0, 12))
    run = WORDS[first : first + 13]
    run[changed] = "another"
    assert found(farm, " ".join(WORDS[first : first + 12]), " ".join(run)) == [0, 0]


def test_the_value_counts_different_runs(farm: Checked, tmp_path: Path) -> None:
    (one,) = farm.sets
    assert found(farm, QUESTION, QUESTION + "\n" + QUESTION) == [one.grams, one.grams]
    twice = checked(
        tmp_path, [QUESTION, "Something else that nobody has to say in so many words as these are, says he"]
    )
    assert found(twice, QUESTION) == [one.grams] != [twice.sets[0].grams]


def test_a_long_document_has_as_many_runs_as_the_set_whatever_its_words_are_like(tmp_path: Path) -> None:
    letters = " ".join(chr(97 + at % 26) for at in range(1000)) + " " + " ".join(str(at) for at in range(3000))
    rules = checked(tmp_path, [letters])
    assert rules.sets[0].grams > 3000
    assert found(rules, letters, f"x {letters} x {letters}") == [rules.sets[0].grams] * 2
    ideographs = "".join(chr(0x4E00 + at) for at in range(2000))
    assert found(checked(tmp_path / "more", [ideographs]), ideographs, "a", "\u00e9 b c d") == [1988, 0, 0]


def test_a_short_text_is_looked_for_as_a_whole_and_a_shorter_one_is_counted(tmp_path: Path) -> None:
    rules = checked(tmp_path, ["One two three four five six seven eight nine.", "one two three"])
    assert (rules.sets[0].texts, rules.sets[0].texts_too_short, rules.sets[0].grams) == (2, 1, 1)
    whole = "zero one two three four five six seven eight nine ten"
    assert found(rules, whole, whole.replace(" nine", ""), "one two three") == [1, 0, 0]


def test_a_set_of_which_nothing_can_be_looked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of its 2 texts has 8 words"):
        checked(tmp_path, ["Paris", "Four."])


def test_characters_of_scripts_without_spaces_are_words_and_syllables_of_korean_are_not_their_first_letters(
    tmp_path: Path,
) -> None:
    rules = checked(tmp_path, ["农民在市场上卖二十五个西瓜他带回家", "가 나 다 라 마 바 사 아 자 차 카 타 파"])
    assert found(rules, "前面的话农民在市场上卖，二十五个西瓜后面的话", "农民在市场上卖，二十五个瓜") == [1, 0]
    assert found(rules, "가 나 다 라 마 바 사 아 자 차 카 타 파", "거 나 다 라 마 바 사 아 자 차 카 타 파") == [1, 0]


@pytest.mark.parametrize(
    ("fields", "most"), [({}, 0), ({"least_grams": 3}, 2), ({"least_set_fraction": 0.5}, 9), ({"gram_words": 5}, 0)]
)
def test_the_bounds_decide_how_many_runs_are_too_many(tmp_path: Path, fields: dict[str, Any], most: int) -> None:
    rules = checked(tmp_path, [QUESTION], **fields)
    assert rules.rules[0].filter.at_most == most
    words = len(QUESTION.replace("'", " ").replace("-", " ").split())
    assert rules.sets[0].grams == words - fields.get("gram_words", 13) + 1


@pytest.fixture(scope="module")
def planted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SourceSpec, Path]:
    """The small corpus with the question in two of its files, and evaluation sets of three kinds."""
    folder = tmp_path_factory.mktemp("planted")
    for path in corpus.rglob("*.py"):
        (folder / path.name).write_bytes(path.read_bytes())
    text = (folder / "encoder.py").read_text()
    shouted = "# " + QUESTION.upper().replace("ÉCOUTEZ", "Écoutez").replace(" ", "\n#  ")
    (folder / "shouted.py").write_text(text[:4000] + shouted + text[4000:])
    (folder / "ends.py").write_text((folder / "parser.py").read_text() + "\n# " + QUESTION)
    (folder / "control.py").write_text(text + "\n# " + " ".join(QUESTION.split()[:9]))
    sets = tmp_path_factory.mktemp("sets")
    (sets / "questions").mkdir()
    pq.write_table(pa.table({"question": [QUESTION, "An unrelated question"]}), sets / "questions" / "part.parquet")
    (sets / "never.txt").write_text(" ".join(f"never{number}" for number in range(50)))
    (sets / "other.csv").write_text("text\n" + QUESTION.replace(",", " ") + "\n")
    return SourceSpec(kind="folder", path=str(folder)), sets


def spec_of(sets: Path) -> DecontaminationSpec:
    farm = EvaluationSetSpec(name="farm", path=str(sets / "questions"), text_field="question")
    return DecontaminationSpec(sets=(EvaluationSetSpec(name="never", path=str(sets / "never.txt")), farm))


def test_the_stage_drops_what_holds_the_set_and_is_the_same_for_any_workers(
    planted: tuple[SourceSpec, Path], tmp_path: Path, serial_context: Build, little_spec: Build, digests: Build
) -> None:
    source, sets = planted
    fields = {"source": source, "decontamination": spec_of(sets)}
    alone = ingest(little_spec(**fields, workers=1), {}, serial_context(tmp_path / "alone"))
    pool = serial_context(tmp_path / "three", pool=ProcessPool())
    three = ingest(little_spec(**fields, workers=3, unit_bytes=20_000), {}, pool)
    assert digests(tmp_path / "alone") == digests(tmp_path / "three")
    assert alone.summary | {"units": {}} == three.summary | {"units": {}}
    rows = [row for table in ShardDataset(tmp_path / "alone" / "dropped").tables() for row in table.to_pylist()]
    dropped = {row["document"]: row["value"] for row in rows if row["rule"] == "contamination_farm <= 0"}
    never, farm = alone.summary["decontamination"]
    assert dropped == {"folder/shouted.py": farm["grams"], "folder/ends.py": farm["grams"]}
    assert (never["name"], never["dropped"], farm["name"], farm["dropped"]) == ("never", 0, "farm", 2)
    without = ingest(little_spec(source=source), {}, serial_context(tmp_path / "without"))  # the negative control
    assert without.summary["documents"]["kept"] == alone.summary["documents"]["kept"] + 2
    assert without.summary["decontamination"] == []


def test_an_edited_set_is_another_ingestion_and_a_moved_one_is_not(
    planted: tuple[SourceSpec, Path], tmp_path: Path
) -> None:
    table = tmp_path / "set.jsonl"
    moved = tmp_path / "moved.csv"

    def key(path: Path, field: str) -> str:
        one = EvaluationSetSpec(name="farm", path=str(path), text_field=field)
        return ingest_key(IngestSpec(decontamination=DecontaminationSpec(sets=(one,))), "content").digest

    table.write_text(json.dumps({"text": QUESTION}) + "\n")
    moved.write_text(f'question\n"{QUESTION}"\n')
    first = key(table, "text")
    assert key(moved, "question") == first
    table.write_text(json.dumps({"text": QUESTION + " Or not?"}) + "\n")
    assert key(table, "text") != first
    assert list(ingest_key(IngestSpec(), "content").parts["inputs"]) == ["source"]


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("missing.jsonl", None, DataError, r"farm: .*missing\.jsonl is not there"),
        ("empty", "", DataError, "farm: no file in .*empty matches"),
        ("set.jsonl", '{"question": "x"}\n', ConfigError, "no column 'text'"),
        ("set.jsonl", '{"text": "x"}\n{"text": 3}\n', DataError, "row 2 of .*: int, not a text"),
        ("set.txt", "\0", DataError, "not text: a NUL byte"),
    ],
)
def test_a_set_that_cannot_be_read_is_refused_with_its_name(
    tmp_path: Path, name: str, content: str | None, error: type[Exception], words: str
) -> None:
    if content == "":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_text(content)
    one = EvaluationSetSpec(name="farm", path=str(tmp_path / name))
    with pytest.raises(error, match=words):
        ingest_key(IngestSpec(decontamination=DecontaminationSpec(sets=(one,))), "content")


def test_images_without_captions_have_nothing_to_look_at(
    planted: tuple[SourceSpec, Path], tmp_path: Path, serial_context: Build, little_spec: Build
) -> None:
    spec = little_spec(source=SourceSpec(kind="digits"), filters=(), decontamination=spec_of(planted[1]))
    with pytest.raises(ConfigError, match=r"ingest\.decontamination measures texts"):
        ingest(spec, {}, serial_context(tmp_path))
