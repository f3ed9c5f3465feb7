"""Which documents stay, and in which split: what an ingestion decides between reading and writing.

    read units --exact copies--> --repeated paragraphs--> --near copies--> corpus --by id--> splits

What it needs to know of all documents at once lies on disk, in partitions that fit `ingest.work_memory_bytes`. What a
step found is kept as a unit, named by the documents that came to it: no copy is looked for twice.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from foundation_core.data.copies.exact import RULE, exact_copies
from foundation_core.data.copies.losses import Losses, without_copies
from foundation_core.data.copies.spill import Scratch
from foundation_core.data.shards.dataset import arrow_bytes
from foundation_core.data.sources.documents import SourceFile
from foundation_core.data.sources.ids import PLACES_FILE
from foundation_core.data.split import SPLITS, split_of
from foundation_core.data.units.corpus import Corpus, Part
from foundation_core.data.units.work import Unit, Work
from foundation_core.errors import DataError
from foundation_core.files import full_disk_said
from foundation_core.specs import IngestSpec

_SAME_IDS, _EXACT, _NEAR = "same ids", "exact copies", "near copies"
"""Steps that compare all documents."""


def chosen(
    spec: IngestSpec, reads: Sequence[Unit], sketch: Callable[[pa.Array], pa.Array] | None, work: Work, folder: Path
) -> Corpus:
    """The documents of all units that stay, and why the others do not.

    Args:
        sketch: computed of texts that change, for fuzzy deduplication.
        work: how pieces of work are done.
        folder: for what is known of the corpus as long as it is needed; what is in it is removed.

    Raises:
        DataError: the account does not come out even, too much cannot be read, or nothing is left.
        DiskFullError: there is no room in the folder.
    """
    _empty(folder)
    parts, removed = [Part.of(read, folder / f"{number:06d}") for number, read in enumerate(reads)], None

    def found(step: str, find: Callable[[Scratch], Losses], *decides: Any) -> Unit:
        unit = work.found(step, [*decides, *map(_named, parts)])
        if not unit.finished():
            with Scratch(folder / "copies", spec.work_memory_bytes).opened() as scratch:
                find(scratch).commit(unit)
        return unit

    if any((read.folder / PLACES_FILE).exists() for read in reads):
        from foundation_core.data.copies.same_ids import same_ids, without_same_ids  # few documents bring ids along

        parts = without_same_ids(parts, found(_SAME_IDS, partial(same_ids, parts)))
    if spec.exact_dedup:
        parts = without_copies(parts, found(_EXACT, partial(exact_copies, parts)), "exact", RULE)
    if spec.paragraph_dedup.use:
        from foundation_core.data.copies.paragraphs import without_repeats  # numpy, which few ingestions need

        parts, removed = without_repeats(parts, spec.paragraph_dedup, sketch, work, spec.dropped_text_characters)
    near = spec.fuzzy_dedup
    if near.use:
        from foundation_core.data.copies.near import near_copies, near_rule  # compiled code, which few ingestions need

        unit = found(_NEAR, partial(near_copies, parts, near), near.model_dump(mode="json"))
        parts = without_copies(parts, unit, "near", near_rule(near))
    documents, cut, cleaned, languages = 0, 0, Counter[str](), Counter[str]()
    for facts in (read.facts() for read in reads):
        documents += facts["documents"]
        cut += facts["cut"]
        cleaned.update(facts["changes"])
        languages.update(facts["languages"])
    corpus = Corpus(parts, reads, removed, dict(sorted(cleaned.items())), languages, cut)
    _check(spec, corpus, documents)
    return corpus


def _named(part: Part) -> list[str]:
    """What says which documents a part has, and what they hold."""
    return [part.read.identity, hashlib.sha256(arrow_bytes(pa.table({"row": part.rows()}))).hexdigest()]


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with full_disk_said(folder):
        folder.mkdir(parents=True)


def _check(spec: IngestSpec, corpus: Corpus, documents_in: int) -> None:
    kept, dropped, quarantined = corpus.counts().values()
    if documents_in != kept + dropped + quarantined:
        raise DataError(
            f"{documents_in} documents went in; {kept} kept + {dropped} dropped + {quarantined} quarantined came out"
        )
    if quarantined > spec.quarantine_fraction * documents_in:
        first = corpus.quarantined_first(3)
        raise too_many_quarantined(quarantined, str(documents_in), first, spec.quarantine_fraction)
    if not kept:
        rules = ", ".join(f"{rule!r} dropped {count}" for rule, count in corpus.dropped_by_rule.items())
        raise DataError(
            f"no document is left of {documents_in}: {rules or 'none dropped'}, {quarantined} quarantined",
            fix="loosen ingest.quality or ingest.filters, or choose another source",
        )


def too_many_quarantined(quarantined: int, of: str, first: Sequence[Mapping[str, str]], fraction: float) -> DataError:
    """The error for more unreadable documents than there may be.

    Args:
        of: how many documents there are, in words.
        first: rows of `QUARANTINED`.
    """
    said = "; ".join(f"{row['document']}: {row['reason']}" for row in first)
    return DataError(
        f"{quarantined} of {of} documents cannot be read: {said}",
        allowed=f"at most {fraction:.1%} (ingest.quarantine_fraction)",
        fix="repair or remove these files, or narrow source.pattern to the files that can be read",
    )


def split(spec: IngestSpec, corpus: Corpus, items: Sequence[SourceFile]) -> Corpus:
    """The corpus with the split of every document.

    Raises:
        DataError: a split has no document.
    """
    allowed = {item.document: item.splits for item in items if item.splits != SPLITS}
    parts, counts = [], Counter[str]()
    for part in corpus.parts:
        documents = part.index["document"].to_pylist()
        splits = [split_of(document, spec.split, allowed.get(document, SPLITS)) for document in documents]
        counts.update(splits)
        parts.append(part.with_splits(splits))
    if not all(counts[name] for name in SPLITS):
        raise DataError(
            "a split has no document: " + ", ".join(f"{counts[name]} {name}" for name in SPLITS),
            fix="add documents, give that split a larger fraction, or choose another ingest.split.seed",
        )
    return replace(corpus, parts=parts)
