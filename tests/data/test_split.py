"""The split of a document."""

from __future__ import annotations

from collections import Counter

from foundation_core.data.split import split_of
from foundation_core.specs import SplitSpec

DOCUMENTS = [f"source/{number}.py" for number in range(20_000)]


def test_splits_have_the_shares_that_were_asked_for() -> None:
    counts = Counter(
        split_of(document, SplitSpec(validation_fraction=0.1, test_fraction=0.15)) for document in DOCUMENTS
    )
    assert abs(counts["validation"] / len(DOCUMENTS) - 0.1) < 0.01
    assert abs(counts["test"] / len(DOCUMENTS) - 0.15) < 0.01
    assert counts["train"] == len(DOCUMENTS) - counts["validation"] - counts["test"]


def test_another_validation_share_leaves_the_test_split_as_it_was() -> None:
    narrow, wide = SplitSpec(validation_fraction=0.05), SplitSpec(validation_fraction=0.3)
    for document in DOCUMENTS[:2000]:
        assert (split_of(document, narrow) == "test") == (split_of(document, wide) == "test")


def test_another_seed_gives_another_split() -> None:
    one, two = ([split_of(document, SplitSpec(seed=seed)) for document in DOCUMENTS[:2000]] for seed in (0, 1))
    assert one != two
    assert one == [split_of(document, SplitSpec(seed=0)) for document in DOCUMENTS[:2000]]


def test_the_split_of_a_document_is_the_same_in_every_version() -> None:
    splits = {
        "python_stdlib/ast.py": "validation",
        "python_stdlib/json/decoder.py": "test",
        "python_stdlib/json/encoder.py": "validation",
        "python_stdlib/os.py": "train",
    }
    assert {document: split_of(document, SplitSpec()) for document in splits} == splits


def test_a_source_that_states_its_test_set_leaves_the_rest_to_the_hash() -> None:
    spec = SplitSpec(validation_fraction=0.2, test_fraction=0.3)
    rest = Counter(split_of(document, spec, ("train", "validation")) for document in DOCUMENTS)
    assert set(rest) == {"train", "validation"}
    assert abs(rest["validation"] / len(DOCUMENTS) - 0.2) < 0.01
    for document in DOCUMENTS[:200]:
        assert split_of(document, spec, ("test",)) == "test"
        assert split_of(document, spec, ("validation",)) == "validation"
