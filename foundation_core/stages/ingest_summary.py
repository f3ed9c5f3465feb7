"""What an ingestion says of its result: figures for people, for the cards and for the forecast of the next run."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from heapq import nsmallest
from itertools import accumulate, islice
from typing import Any

from foundation_core.data.reading.decoding import UTF8
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources.modalities import Reader
from foundation_core.data.split import Split
from foundation_core.data.tokens.byte_level import END, TOKENIZER_FILE
from foundation_core.data.tokens.fertility import fertility
from foundation_core.data.tokens.kinds import NAMES, vocabulary_of
from foundation_core.data.units.corpus import Corpus
from foundation_core.errors import as_foundation_error
from foundation_core.pages.card import CARD_FOLDER, write_card
from foundation_core.pages.making import cut_told
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context

_SHOWN = 50
_TIMES = (
    "listing", "reading", "language", "cleaning", "rules", "signatures", "deduplication", "tokenizer", "encoding",
    "writing",
)  # fmt: skip
"""What the time of an ingestion is told for, in this order."""
_QUANTILES = {"smallest": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "largest": 1.0}


def summarise(
    spec: IngestSpec, reader: Reader, corpus: Corpus, rows: Mapping[Split, ShardDataset], source: Mapping[str, str]
) -> dict[str, Any]:
    """The summary of the result but for its shape and statistics.

    Args:
        rows: the tokens or samples of each split.
        source: what is known of it.
    """
    counts, sizes, groups = corpus.counts(), Counter[tuple[str, int]](), Counter[str]()
    for index in corpus.indices():
        sizes.update(zip(index["split"].to_pylist(), index["bytes"].to_pylist(), strict=True))
        groups.update(index["group"].to_pylist())
    splits = {split: _split_summary(sizes, reader, dataset, split) for split, dataset in rows.items()}
    tokens, text_bytes = (sum(of[name] for of in splits.values()) for name in ("tokens", "text_bytes"))
    summary = {
        "source": dict(source),
        "reading": reader.modality.reading,
        "documents": {"in": sum(counts.values()), **counts},
        "bytes": sum(size * count for (_, size), count in sizes.items()),
        "text_bytes": text_bytes,
        "tokens": tokens,
        "bytes_per_token": text_bytes / tokens if tokens else 0.0,
        "splits": splits,
        "document_bytes": _quantiles(sizes),
        "group_count": len(groups),
        "groups": dict(nsmallest(_SHOWN, groups.items(), key=lambda group: (-group[1], group[0]))),
        "dropped_by_rule": corpus.dropped_by_rule,
        "quarantined_by_reason": dict(islice(corpus.quarantined_by_reason.items(), _SHOWN)),
        "quarantined_first": corpus.quarantined_first(5),
    }
    if corpus.cut:
        summary["cut"] = corpus.cut
    if corpus.cleaned:
        summary["cleaned"] = dict(corpus.cleaned)
    if corpus.removed is not None:
        summary["repeated_paragraphs"] = corpus.removed._asdict()
    if reader.has_text:
        summary["encodings"] = corpus.encodings()
        if languages := corpus.languages():
            summary["languages"] = languages
        summary["tokenizer"] = {
            "sha256": rows["train"].tokenizer,
            "vocabulary": vocabulary_of(spec.tokenizer),
            "kind": NAMES[spec.tokenizer.kind],
            "trained": spec.tokenizer.kind != "existing",
            "end": END,
            "fertility": fertility(corpus, rows["train"].folder.parents[1] / TOKENIZER_FILE),
        }
    return summary


def _quantiles(sizes: Mapping[tuple[str, int], int]) -> dict[str, int]:
    """The sizes at some shares of the documents, each of a document: the lower one of two between which a share lies.

    Args:
        sizes: how many documents of each split have so many bytes; held for each different size, not for each document.
    """
    counts = Counter[int]()
    for (_, size), count in sizes.items():
        counts[size] += count
    ordered = sorted(counts)
    ends = list(accumulate(counts[size] for size in ordered))
    return {name: ordered[bisect_right(ends, int(share * (ends[-1] - 1)))] for name, share in _QUANTILES.items()}


def _split_summary(
    sizes: Mapping[tuple[str, int], int], reader: Reader, dataset: ShardDataset, split: Split
) -> dict[str, int]:
    content_bytes = sum(size * count for (name, size), count in sizes.items() if name == split)
    text_bytes = content_bytes - dataset.rows * reader.value_bytes
    return {"documents": dataset.rows, "text_bytes": text_bytes, "tokens": dataset.tokens, "shards": dataset.shards}


def report(summary: Mapping[str, Any], name: str, train: ShardDataset, context: Context) -> None:
    """Tell the tracker and the people who watch what came out.

    Args:
        name: of the training rows.
    """
    documents = summary["documents"]
    metrics = {f"ingest/documents_{name}": float(count) for name, count in documents.items()}
    metrics["ingest/bytes"] = summary["bytes"]
    said = f"{summary['bytes'] / 1e6:,.1f} MB of values"
    if summary["tokens"]:
        metrics |= {f"ingest/{name}": summary[name] for name in ("tokens", "bytes_per_token")}
        said = f"{summary['tokens']:,} tokens of {summary['bytes_per_token']:.2f} bytes"
    context.tracker.metrics(metrics)
    facts = {"digest": train.content, "rows": train.rows, "tokens": train.tokens, "source": summary["source"]}
    context.tracker.dataset(name, facts)
    context.events.say(
        f"{documents['in']} documents: {documents['kept']} kept, {documents['dropped']} dropped, "
        f"{documents['quarantined']} quarantined; {said}"
    )
    if told := cut_told(summary):
        context.events.say(told)
    old = {name: count for name, count in summary.get("encodings", {}).items() if name != UTF8}
    if old:
        named = ", ".join(f"{count} {name}" for name, count in old.items())
        context.events.say(f"{sum(old.values())} texts were in other encodings than UTF-8 and were repaired: {named}")


def say_content_and_times(content: str, seconds: Mapping[str, float], context: Context) -> None:
    """Tell the people who watch what the corpus is named by, and where the time went.

    Args:
        content: hash of all that later stages read.
        seconds: of this process and the workers together, by what was done; what was there already took none.
    """
    context.events.say(f"content {content}: the same for any number of workers")
    in_order = [*_TIMES, *(name for name in seconds if name not in _TIMES)]
    known = {name: seconds[name] for name in in_order if name in seconds}
    context.tracker.metrics({f"ingest/seconds_{name}": second for name, second in known.items()})
    whole = sum(known.values())
    shares = ", ".join(f"{name} {second / whole:.0%}" for name, second in known.items())
    context.events.say(f"where {whole:.1f} s of all processes went: {shares}")


def show_card(spec: IngestSpec, summary: Mapping[str, Any], outputs: Mapping[str, str], context: Context) -> None:
    """Write the data card beside the data sets, and give it to the tracker."""
    context.events.phase("card")
    try:
        paths = write_card(context.folder, spec, summary, outputs)
    except Exception as error:  # a corpus that is whole is not lost for a page about it
        context.events.say(f"no data card: {as_foundation_error(error).found}")
        return
    for path in paths:
        context.tracker.artifact(path, CARD_FOLDER)
