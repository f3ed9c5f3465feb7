"""Near copies: what is dropped is a copy of what stays, what stays is no copy, and the keys find what there is."""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation_core.data.copies.minhash import Sketch, similarity
from foundation_core.data.copies.near import Ranks, near_copies, near_rule
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.units.corpus import Places
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import FuzzyDedupSpec, SourceSpec
from foundation_core.stages.ingest import ingest
from tests.support.deduplication import ROOM, Dropped, dropped_of, near_copies_in_memory, scratch_parts, without

Build = Callable[..., Any]
SPEC = FuzzyDedupSpec(use=True)
SKETCH = Sketch.of(SPEC)
LIBRARY = Path(sysconfig.get_paths()["stdlib"])


def column(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def found(texts: list[str], spec: FuzzyDedupSpec = SPEC, per_part: int = 50, memory_bytes: int = ROOM) -> Dropped:
    """Of each dropped text the one that stays in its place, and their similarity."""
    with scratch_parts(texts, per_part, spec, memory_bytes) as (parts, scratch):
        return dropped_of(without(parts, near_copies(parts, spec, scratch), near_rule(spec), scratch))


def varied(text: str, share: float, seed: int) -> str:
    """The text with a share of its words replaced."""
    draw = random.Random(seed)
    return " ".join(f"w{draw.random()}" if draw.random() < share else word for word in text.split())


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Real texts and versions of them, from the same words to unlike ones."""
    real = [path.read_text() for path in sorted((LIBRARY / "email").glob("*.py"))]
    versions = [varied(text, share, seed) for seed, text in enumerate(real) for share in (0, 0.005, 0.02, 0.05, 0.3)]
    return [text for text in real + versions if len(text) > 500]


def exact(first: str, second: str) -> float:
    return similarity(SKETCH.shingles(first), SKETCH.shingles(second))


def test_what_is_dropped_is_a_copy_of_what_stays_and_what_stays_is_no_copy_of_another(texts: list[str]) -> None:
    gone = found(texts)
    assert len(gone) > 40
    for row, (survivor, value) in gone.items():
        assert survivor not in gone
        assert value == exact(texts[row], texts[survivor]) >= SPEC.similarity
        assert len(texts[survivor].encode()) >= len(texts[row].encode())
    stay = [row for row in range(len(texts)) if row not in gone]
    likeness = [exact(texts[a], texts[b]) for a in stay for b in stay if a < b]
    copies = sum(value >= SPEC.similarity for value in likeness)
    assert copies <= 0.02 * len(gone)  # each such pair has 16 keys of 7 that all differ: 2% of pairs at the bound
    assert max(likeness) > 0.5  # the control: texts that are alike, but not enough, all stay


@pytest.mark.parametrize("survivor", ["longest", "first"])
@pytest.mark.parametrize(("per_part", "memory_bytes"), [(1000, ROOM), (50, 20_000), (7, 1024)])
def test_it_is_the_choice_made_in_memory_for_any_parts_and_any_memory(
    texts: list[str], survivor: Any, per_part: int, memory_bytes: int
) -> None:
    spec = SPEC.model_copy(update={"survivor": survivor})
    assert found(texts, spec, per_part, memory_bytes) == near_copies_in_memory(texts, spec)
    assert found(texts, spec) != near_copies_in_memory(texts[1:], spec)  # the negative control


@given(
    picked=st.lists(st.integers(0, 11), max_size=14),
    per_part=st.integers(1, 14),
    memory_bytes=st.sampled_from([1, 300, 3000, ROOM]),
    survivor=st.sampled_from(["longest", "first"]),
)
@settings(max_examples=25)
def test_chains_of_small_changes_are_cut_as_in_memory(
    picked: list[int], per_part: int, memory_bytes: int, survivor: Any
) -> None:
    chain = [" ".join(f"w{at}" for at in range(number, number + 60)) for number in range(12)]
    spec = SPEC.model_copy(update={"survivor": survivor})
    some = [chain[number] for number in picked]
    assert found(some, spec, per_part, memory_bytes) == near_copies_in_memory(some, spec)


def test_documents_that_no_64_bits_can_rank_are_refused() -> None:
    with scratch_parts(["x" * 40] * 3, 1, SPEC) as (parts, _):
        places = Places(parts)
        assert Ranks.of(places, SPEC).row(5) == 1
        places.starts.append(1 << 60)
        with pytest.raises(DataError, match="cannot be ranked by length"):
            Ranks.of(places, SPEC)


def test_fewer_keys_miss_copies_that_more_keys_find(texts: list[str]) -> None:
    few = FuzzyDedupSpec(use=True, bands=1, band_rows=32)
    assert len(found(texts, few)) < len(found(texts)) - 5


def test_entries_agree_as_often_as_shingles_are_shared(texts: list[str]) -> None:
    entries = Sketch(5, 64, 1)
    original, *versions = [texts[0], *(varied(texts[0], share, 9) for share in (0.01, 0.05, 0.1, 0.2))]
    keys = entries(column([original, *versions])).to_pylist()
    for version, row in zip(versions, keys[1:], strict=True):
        agreed = sum(a == b for a, b in zip(keys[0], row, strict=True)) / 64
        assert agreed == pytest.approx(exact(original, version), abs=4 * (0.25 / 64) ** 0.5)


def test_words_are_compared_and_not_how_they_are_written() -> None:
    written = ["Él pagó 125 euros, dijo; y se fue.", "el pago 7 euros dijo y se fue", "el pago euros dijo y se fue"]
    first, second, other = SKETCH(column(written)).to_pylist()
    assert first == second != other
    assert exact(written[0], written[1]) == 1
    assert exact(written[0], written[2]) == pytest.approx(1 / 6)  # of 4 and 3 runs they share the last


def test_a_text_without_a_word_has_no_keys_and_a_short_one_is_one_run() -> None:
    keys = SKETCH(column(["", " .,;", "one", "One!", "two"])).to_pylist()
    assert keys[:2] == [None, None]
    assert keys[2] == keys[3] != keys[4]
    assert found(["", " .,;", "", "one", "One!"]) == {3: (4, 1.0)}


def test_the_survivor_goes_by_the_rule() -> None:
    long = " ".join(f"word{chr(97 + at % 26)}{chr(97 + at // 26)}" for at in range(200))
    shorter = long.rsplit(" ", 5)[0]
    assert list(found([shorter, long])) == [0]
    assert list(found([shorter, long], SPEC.model_copy(update={"survivor": "first"}))) == [1]
    assert found([long, long, long]) == {1: (0, 1.0), 2: (0, 1.0)}


@pytest.fixture(scope="module")
def doubled(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> SourceSpec:
    """The small corpus, with a version of one of its files."""
    folder = tmp_path_factory.mktemp("doubled")
    for path in corpus.rglob("*.py"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "nearly.py").write_text((corpus / "json" / "decoder.py").read_text().replace("JSONDecodeError", "Wrong"))
    return SourceSpec(kind="folder", path=str(folder))


def test_the_stage_drops_near_copies_and_is_the_same_for_any_units(
    doubled: SourceSpec, tmp_path: Path, serial_context: Build, little_spec: Build, digests: Build
) -> None:
    contents = []
    for unit_bytes in (20_000, 500_000):
        folder = tmp_path / str(unit_bytes)
        spec = little_spec(source=doubled, unit_bytes=unit_bytes, fuzzy_dedup=FuzzyDedupSpec(use=True))
        result = ingest(spec, {}, serial_context(folder))
        contents.append(digests(folder))
    assert contents[0] == contents[1]
    rows = [row for table in ShardDataset(folder / "dropped").tables() for row in table.to_pylist()]
    (row,) = [row for row in rows if row["document"] == "folder/nearly.py"]
    assert row["kept"] == "folder/a_copy.py"
    assert row["rule"] == "similarity < 0.8"
    assert 0.8 <= row["value"] < 1
    assert sum(result.summary["dropped_by_rule"].values()) == result.summary["documents"]["dropped"]
    without = ingest(little_spec(source=doubled), {}, serial_context(tmp_path / "without"))
    assert without.summary["documents"]["dropped"] == result.summary["documents"]["dropped"] - sum(
        row["rule"] == "similarity < 0.8" for row in rows
    )


def test_captions_alone_do_not_make_copies_of_images(tmp_path: Path, serial_context: Build, little_spec: Build) -> None:
    spec = little_spec(source=SourceSpec(kind="digits_with_captions"), fuzzy_dedup=SPEC, filters=())
    with pytest.raises(ConfigError, match="more than their captions"):
        ingest(spec, {}, serial_context(tmp_path))
