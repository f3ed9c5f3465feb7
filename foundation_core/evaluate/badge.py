"""What a score is worth: whether the data that the model learned from was checked for what it is examined with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_CHECKED = "not checked against any evaluation set"


def badge(corpus: Mapping[str, Any]) -> str:
    """The evaluation sets against which a corpus was checked, each with what identifies it, or that there are none.

    Args:
        corpus: the summary of its ingestion.
    """
    sets = [_described(one) for one in corpus.get("decontamination", [])]
    return f"checked against {'; '.join(sets)}" if sets else NOT_CHECKED


def _described(one: Mapping[str, Any]) -> str:
    short = f", {one['texts_too_short']:,} of its {one['texts']:,} texts too short" if one["texts_too_short"] else ""
    return (
        f"{one['name']} (sha256 {one['sha256'][:12]}, {one['grams']:,} runs of {one['gram_words']} words{short};"
        f" documents dropped: {one['dropped']:,})"
    )
