"""Exact deduplication: of documents with the same normalised text one stays, the one with the smallest id."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.filters import DROPPED

RULE = "copies <= 1"
"""Rule under which a copy is dropped; its value is the number of copies, the one that stays included."""


def exact_copies(index: pa.Table) -> tuple[pa.Array, pa.Table]:
    """Which rows stay, as a mask in the order of the index, and the others as dropped documents that name what stays.

    Args:
        index: document, group and sha256 (of the text) of every document; no text is needed.
    """
    order = pc.sort_indices(index["document"])
    documents, digests = index["document"].take(order), index["sha256"].take(order)
    texts = digests.combine_chunks().dictionary_encode().indices
    rows = pa.array(range(len(index)), pa.int64())
    groups = pa.table({"text": texts, "row": rows}).group_by("text", use_threads=False)
    of_text = groups.aggregate([("row", "min"), ("row", "count")]).sort_by("text")

    survivor = of_text["row_min"].take(texts)
    copy = pc.not_equal(survivor, rows)
    dropped = pa.table(
        {
            "document": documents.filter(copy),
            "group": index["group"].take(order).filter(copy),
            "rule": pa.repeat(RULE, pc.sum(copy).as_py() or 0),
            "value": pc.cast(of_text["row_count"].take(texts).filter(copy), pa.float64()),
            "kept": documents.take(survivor).filter(copy),
        },
        schema=DROPPED,
    )
    return pc.invert(pc.is_in(index["document"], dropped["document"].combine_chunks())), dropped
