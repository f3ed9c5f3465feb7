"""Paragraph deduplication: a paragraph stays where it came first, and nothing else of a text is touched."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.data.copies import paragraphs
from foundation_core.data.copies.paragraphs import without_repeats
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.units.corpus import Corpus, Removed
from foundation_core.data.units.work import Unit
from foundation_core.errors import ConfigError
from foundation_core.specs import FuzzyDedupSpec, ParagraphDedupSpec, SourceSpec
from foundation_core.stages.ingest import ingest
from tests.support.deduplication import parts_of
from tests.support.ingestion import ProcessPool, finished_units, killed_at_renames

Build = Callable[..., Any]
SPEC = ParagraphDedupSpec(use=True, least_characters=10, most_lost_fraction=0.5)
LONG = ["the first long one", "the second long one", "a third that is long", "four is long enough", "and the fifth too"]


@dataclass(frozen=True)
class Here:
    """Does the pieces of work in this process."""

    folder: Path

    def unit(self, phase: str, number: int, documents: Sequence[str]) -> Unit:
        return Unit(self.folder / f"{phase}-{number}", repr([phase, documents]))

    def finish(self, phase: str, function: Callable[[Any], None], pieces: Sequence[Any]) -> None:
        for piece in reversed(pieces):
            function(piece)


def deduplicated(
    texts: Sequence[str], per_part: int = 2, spec: ParagraphDedupSpec = SPEC
) -> tuple[dict[str, str], dict[str, float], Removed]:
    """The texts that stay, the share of each that is dropped, and what was removed."""
    with TemporaryDirectory() as folder:
        parts = parts_of(Path(folder), texts, per_part)
        stay, removed = without_repeats(parts, spec, None, Here(Path(folder)))
        rows = [row for part in stay for row in part.documents().to_pylist()]
        index = [row for table in Corpus(stay).indices() for row in table.to_pylist()]
        dropped = [row for table in Corpus(stay).dropped() for row in table.to_pylist()]
    for row, known in zip(rows, index, strict=True):
        data = row["text"].encode()
        assert (row["bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert [known[name] for name in ("document", "bytes", "sha256")] == [
            row[name] for name in ("document", "bytes", "sha256")
        ]
    return (
        {row["document"]: row["text"] for row in rows},
        {row["document"]: row["value"] for row in dropped},
        removed,
    )


def long_ones(text: str) -> list[str]:
    found = [paragraph.strip() for paragraph in re.split(r"\n\s*\n", text)]
    return [paragraph for paragraph in found if len(paragraph) >= SPEC.least_characters]


document = st.lists(st.sampled_from([*LONG, "short"]), max_size=6).map("\n\n".join)


@given(texts=st.lists(document, min_size=1, max_size=8), per_part=st.integers(1, 8))
def test_each_long_paragraph_stays_where_it_came_first(texts: list[str], per_part: int) -> None:
    stay, gone, removed = deduplicated(texts, per_part)
    names = [f"d/{number:04d}" for number in range(len(texts))]
    assert sorted([*stay, *gone]) == names
    first = dict[str, str]()
    count = 0
    for name, text in zip(names, texts, strict=True):
        if name in gone:
            continue
        expected = [
            paragraph
            for paragraph in (text.split("\n\n") if text else [""])
            if len(paragraph) < SPEC.least_characters or first.setdefault(paragraph, name) == name
        ]
        assert stay[name] == "\n\n".join(expected)
        count += (len(text.split("\n\n")) if text else 1) - len(expected)
    assert removed.paragraphs == count


@given(texts=st.lists(document, min_size=1, max_size=8))
def test_a_document_is_dropped_by_what_it_shares_with_all_earlier_ones(texts: list[str]) -> None:
    _, gone, _ = deduplicated(texts)
    seen = set[str]()
    for number, text in enumerate(texts):
        lost = sum(len(paragraph) for paragraph in long_ones(text) if paragraph in seen)
        share = lost / max(1, sum(map(len, text.split("\n\n"))))
        assert gone.get(f"d/{number:04d}", 0.0) == (pytest.approx(share) if share > SPEC.most_lost_fraction else 0)
        seen.update(long_ones(text))


def test_the_result_does_not_depend_on_units_or_on_how_many_are_matched_at_once(monkeypatch: Any) -> None:
    texts = ["\n\n".join([*LONG[number % 4 : number % 4 + 2], f"its own words {number}" * 9]) for number in range(12)]
    whole = deduplicated(texts, 12)
    assert whole[2].paragraphs > 10
    monkeypatch.setattr(paragraphs, "_PARAGRAPHS_PER_MATCH", 3)
    assert [deduplicated(texts, per_part) for per_part in (1, 2, 5, 12)] == [whole] * 4


def test_what_is_left_of_a_text_is_left_as_it_was() -> None:
    first = f"{LONG[0]}\n\n{LONG[1]}"
    second = f"  indented words\n\n\n  {LONG[0]}  \n \t\n    more of it, {LONG[1]}\n\nand {LONG[2]}\nthe end\n"
    stay, _, removed = deduplicated([first, second])
    assert stay["d/0000"] == first
    assert stay["d/0001"] == second.replace(f"\n\n\n  {LONG[0]}  ", "")
    assert removed == Removed(1, len(LONG[0]), 1)
    assert deduplicated([first, second], spec=SPEC.model_copy(update={"least_characters": 60}))[0]["d/0001"] == second


def test_a_paragraph_of_a_document_that_is_dropped_stays_in_a_later_one() -> None:
    both = f"{LONG[0]}\n\n{LONG[1]}"
    mostly = f"{both}\n\n{LONG[2]}"
    later = f"{LONG[2]}\n\nand much more that nobody else has to say, not in so many words"
    stay, gone, removed = deduplicated([both, mostly, later])
    assert list(gone) == ["d/0001"]
    assert stay["d/0002"] == later
    assert removed == Removed()


@pytest.fixture(scope="module")
def noticed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> SourceSpec:
    """The small corpus with one long notice in some of its files, and a file that is little else."""
    folder = tmp_path_factory.mktemp("noticed")
    notice = '"""' + "All that is said here is said without any warranty of being so, says the notice. " * 3 + '"""'
    for path in corpus.rglob("*.py"):
        (folder / path.name).write_bytes(path.read_bytes())
    for name in ("encoder.py", "encoders.py", "scanner.py"):
        (folder / name).write_text(f"{notice}\n\n{(folder / name).read_text()}")
    (folder / "only.py").write_text(f"{notice}\n\n# no more than this line here, of sixty characters or so\n")
    return SourceSpec(kind="folder", path=str(folder))


def test_the_stage_removes_repeated_paragraphs_and_is_the_same_for_any_workers(
    noticed: SourceSpec, tmp_path: Path, serial_context: Build, little_spec: Build, digests: Build
) -> None:
    fields = {
        "source": noticed,
        "paragraph_dedup": ParagraphDedupSpec(use=True),
        "fuzzy_dedup": FuzzyDedupSpec(use=True),
    }
    alone = ingest(little_spec(**fields, workers=1), {}, serial_context(tmp_path / "alone"))
    pool = serial_context(tmp_path / "three", pool=ProcessPool())
    three = ingest(little_spec(**fields, workers=3, unit_bytes=20_000), {}, pool)
    assert digests(tmp_path / "alone") == digests(tmp_path / "three")
    assert alone.summary | {"units": {}} == three.summary | {"units": {}}
    dropped = [row for table in ShardDataset(tmp_path / "alone" / "dropped").tables() for row in table.to_pylist()]
    (only,) = [row for row in dropped if row["rule"] == "repeated_paragraphs <= 0.5"]
    assert only["document"] == "folder/only.py"
    assert 0.5 < only["value"] < 1
    documents = ShardDataset(tmp_path / "alone" / "documents").tables()
    texts = {row["document"]: row["text"] for table in documents for row in table.to_pylist()}
    assert [name for name, text in texts.items() if "says the notice" in text] == ["folder/encoder.py"]
    assert alone.summary["repeated_paragraphs"]["paragraphs"] >= 2
    without = ingest(little_spec(source=noticed), {}, serial_context(tmp_path / "without"))  # the negative control
    assert "repeated_paragraphs" not in without.summary
    assert without.summary["bytes"] > alone.summary["bytes"]


def test_killed_at_any_time_it_continues_to_the_same_bytes(
    noticed: SourceSpec, tmp_path: Path, serial_context: Build, little_spec: Build, digests: Build
) -> None:
    spec = little_spec(source=noticed, paragraph_dedup=ParagraphDedupSpec(use=True))
    ingest(spec, {}, serial_context(tmp_path / "whole"))
    phases = {path.name for path in (tmp_path / "whole" / "units").iterdir()}
    assert phases >= {"digest", "match", "gone", "match-again", "rewrite"}
    read = 5 * len(finished_units(tmp_path / "whole", "read")) + 1
    digested = read + 4 * len(finished_units(tmp_path / "whole", "digest"))
    # before the commits of a part's digests; of a match; of what is gone; of the second match; of a rewritten part
    points = [read + 3, digested + 2, digested + 5, digested + 8, digested + 11]
    killed_at_renames(spec, tmp_path, points)
    for point in points:
        ingest(spec, {}, serial_context(tmp_path / str(point)))
        assert digests(tmp_path / str(point)) == digests(tmp_path / "whole")


def test_captions_are_not_rewritten(tmp_path: Path, serial_context: Build, little_spec: Build) -> None:
    spec = little_spec(source=SourceSpec(kind="digits_with_captions"), paragraph_dedup=SPEC, filters=())
    with pytest.raises(ConfigError, match=r"paragraph_dedup compares texts.*captions"):
        ingest(spec, {}, serial_context(tmp_path))
