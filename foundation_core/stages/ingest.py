"""Ingest: raw files become documents, documents become tokens, and both become data sets.

    files --read units--> documents --dedup, split--> train the tokenizer --encode units--> shards

Units are worked on in any order by any number of workers, and put together in the order of the document ids: the
result is the same to the byte. A committed unit is never done again, so an interruption costs one unit a worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.dedup import exact_copies
from foundation_core.data.documents import DOCUMENTS, QUARANTINED, Source, SourceFile, open_source, source_content
from foundation_core.data.filters import DROPPED, find_measures
from foundation_core.data.shards import ShardDataset, ShardWriter, remove_dataset
from foundation_core.data.split import SPLITS, split_of
from foundation_core.data.tokenizer import END, train_tokenizer
from foundation_core.data.units import (
    DROPPED_FILE,
    KEPT_FILE,
    QUARANTINED_FILE,
    TOKENS,
    TOKENS_FILE,
    EncodePiece,
    ReadPiece,
    Unit,
    encode_unit,
    kept_documents,
    read_unit,
)
from foundation_core.errors import DataError, Stopped
from foundation_core.files import committed, sha256_file, sha256_json
from foundation_core.identity import action_key
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context, Inputs
from foundation_core.store import StageResult

TOKENIZER_FILE = "tokenizer.json"
_SPLIT_DOCUMENTS = DOCUMENTS.insert(2, pa.field("split", pa.string()))
_TEXT_BYTES_PER_TOKEN = 4  # so that shards of documents and of tokens are about as many
_GROUPS_IN_SUMMARY = 50


@dataclass(frozen=True)
class _Part:
    """What a read unit gives to the corpus: document, group, bytes, split and row of each document that stays."""

    read: Unit
    index: pa.Table

    def rows(self, split: str | None = None) -> pa.Array:
        """Rows of the unit's kept documents that stay, of one split or of all."""
        index = self.index if split is None else self.index.filter(pc.field("split") == split)
        return index["row"].combine_chunks()


@dataclass(frozen=True)
class _Corpus:
    """All that is known of the documents but for their texts."""

    parts: Sequence[_Part]
    dropped: pa.Table
    quarantined: pa.Table

    @property
    def index(self) -> pa.Table:
        return pa.concat_tables(part.index for part in self.parts)


def ingest(spec: IngestSpec, inputs: Inputs, context: Context) -> StageResult:
    """Tokens of every split and their tokenizer, beside the documents that were kept, dropped and quarantined.

    Raises:
        ConfigError: no such source or measure, or a vocabulary that the documents cannot fill.
        DataError: the source is missing, empty, unreadable in too large a part, or filtered out as a whole.
        Stopped: somebody asked; the finished units are kept.
    """
    start = time.perf_counter()
    source = open_source(spec.source)
    find_measures(spec.filters)
    files = source.files()
    content = source_content(files)
    work = action_key("ingest", spec, {"source": content}).digest

    corpus = _split(spec, _deduplicated(spec, _read(spec, files, work, context), files))
    tokenizer = _tokenizer(spec, corpus, work, context)
    encoded = _encode(spec, corpus, tokenizer, work, context)
    facts = {"kind": spec.source.kind, "content": content, **_described(source)}
    datasets = _write(spec, corpus, encoded, tokenizer, facts, context)

    outputs = {TOKENIZER_FILE: sha256_file(context.folder / TOKENIZER_FILE)}
    outputs |= {f"tokens/{split}/manifest.json": datasets[f"tokens/{split}"].content for split in SPLITS}
    summary = _summary(spec, corpus, datasets, facts)
    _report(summary, datasets["tokens/train"], context)
    return StageResult(outputs, summary, time.perf_counter() - start)


def _read(spec: IngestSpec, files: Sequence[SourceFile], work: str, context: Context) -> list[Unit]:
    pieces = [
        ReadPiece(_unit("read", number, [file.document for file in part], work, context), part, spec.filters)
        for number, part in enumerate(_cut(files, spec.unit_bytes))
    ]
    _finish("read", read_unit, pieces, spec.workers, context)
    return [piece.unit for piece in pieces]


def _cut(files: Sequence[SourceFile], unit_bytes: int) -> Iterator[tuple[SourceFile, ...]]:
    """The files in units of at most `unit_bytes` each; a larger file is a unit of its own."""
    part, size = list[SourceFile](), 0
    for file in files:
        if part and size + file.bytes > unit_bytes:
            yield tuple(part)
            part, size = [], 0
        part.append(file)
        size += file.bytes
    if part:
        yield tuple(part)


def _unit(phase: str, number: int, documents: Sequence[str], work: str, context: Context) -> Unit:
    return Unit(context.folder / "units" / f"{phase}-{number:05d}", sha256_json([work, phase, documents]))


def _finish(phase: str, function: Callable[[Any], None], pieces: Sequence[Any], workers: int, context: Context) -> None:
    """Do every piece whose unit is not finished yet."""
    context.events.phase(phase)
    waiting = [piece for piece in pieces if not piece.unit.finished()]
    done = len(pieces) - len(waiting)
    if done:
        context.events.say(f"{phase}: {done} of {len(pieces)} units were finished before")
    if waiting:  # a pool may cost processes even for nothing
        for _ in context.pool.map(function, waiting, workers):
            done += 1
            context.events.progress(done, len(pieces), "units")
            _stop_if_asked(f"{phase}: {done} of {len(pieces)} units are finished and kept", context)


def _stop_if_asked(where: str, context: Context) -> None:
    if context.stop.requested():
        raise Stopped(f"ingest stopped. {where}", fix="run the same command again to continue")


def _deduplicated(spec: IngestSpec, reads: Sequence[Unit], files: Sequence[SourceFile]) -> _Corpus:
    parts = [_Part(read, _index(read)) for read in reads]
    dropped = [read.table(DROPPED_FILE) for read in reads]
    if spec.exact_dedup:
        stays, copies = exact_copies(pa.concat_tables(part.index for part in parts))
        dropped.append(copies)
        starts = accumulate((len(part.index) for part in parts), initial=0)
        parts = [
            _Part(part.read, part.index.filter(stays.slice(start, len(part.index))))
            for part, start in zip(parts, starts, strict=False)
        ]
    quarantined = pa.concat_tables(read.table(QUARANTINED_FILE) for read in reads)
    corpus = _Corpus(parts, pa.concat_tables(dropped).sort_by("document"), quarantined)
    _check_corpus(spec, corpus, len(files))
    return corpus


def _index(read: Unit) -> pa.Table:
    kept = read.table(KEPT_FILE).select(["document", "group", "bytes", "sha256"])
    return kept.append_column("row", pa.array(range(len(kept)), pa.int64()))


def _check_corpus(spec: IngestSpec, corpus: _Corpus, documents_in: int) -> None:
    kept, dropped, quarantined = len(corpus.index), len(corpus.dropped), len(corpus.quarantined)
    if documents_in != kept + dropped + quarantined:
        raise DataError(
            f"{documents_in} documents went in; {kept} kept + {dropped} dropped + {quarantined} quarantined came out"
        )
    if quarantined > spec.quarantine_fraction * documents_in:
        first = "; ".join(f"{row['document']}: {row['reason']}" for row in corpus.quarantined.slice(0, 3).to_pylist())
        raise DataError(
            f"{quarantined} of {documents_in} documents cannot be read: {first}",
            allowed=f"at most {spec.quarantine_fraction:.1%} (ingest.quarantine_fraction)",
            fix="repair or remove these files, or narrow source.pattern to the files that are text",
        )
    if not kept:
        rules = ", ".join(f"{rule!r} dropped {count}" for rule, count in _by_rule(corpus).items())
        raise DataError(
            f"no document is left of {documents_in}: {rules or 'none dropped'}, {quarantined} quarantined",
            fix="loosen ingest.filters, or choose another source",
        )


def _split(spec: IngestSpec, corpus: _Corpus) -> _Corpus:
    parts = []
    for part in corpus.parts:
        splits = [split_of(document, spec.split) for document in part.index["document"].to_pylist()]
        parts.append(_Part(part.read, part.index.append_column("split", pa.array(splits, pa.string()))))
    split = _Corpus(parts, corpus.dropped, corpus.quarantined)
    counts = {name: pc.sum(pc.equal(split.index["split"], name)).as_py() for name in SPLITS}
    if not all(counts.values()):
        raise DataError(
            "a split has no document: " + ", ".join(f"{count} {name}" for name, count in counts.items()),
            fix="add documents, give that split a larger fraction, or choose another ingest.split.seed",
        )
    return split


def _tokenizer(spec: IngestSpec, corpus: _Corpus, work: str, context: Context) -> Path:
    """The tokenizer's file, trained on the training documents alone."""
    context.events.phase("tokenizer")
    unit = Unit(context.folder / "units" / "tokenizer", sha256_json([work, "tokenizer"]))
    if not unit.finished():
        _stop_if_asked("The tokenizer is not trained yet; all that was read is kept", context)
        texts = (
            text for part in corpus.parts for text in kept_documents(part.read, part.rows("train"))["text"].to_pylist()
        )
        unit.commit({TOKENIZER_FILE: train_tokenizer(texts, spec.tokenizer.vocabulary).to_str(pretty=True).encode()})
    return unit.folder / TOKENIZER_FILE


def _encode(spec: IngestSpec, corpus: _Corpus, tokenizer: Path, work: str, context: Context) -> list[Unit]:
    pieces = []
    for number, part in enumerate(corpus.parts):
        unit = _unit("encode", number, part.index["document"].to_pylist(), work, context)
        pieces.append(EncodePiece(unit, part.read, tuple(part.rows().to_pylist()), tokenizer))
    _finish("encode", encode_unit, pieces, spec.workers, context)
    return [piece.unit for piece in pieces]


def _write(
    spec: IngestSpec,
    corpus: _Corpus,
    encoded: Sequence[Unit],
    tokenizer: Path,
    facts: Mapping[str, str],
    context: Context,
) -> dict[str, ShardDataset]:
    """Every data set of the result, written from the units in their order."""
    context.events.phase("write")
    with committed(context.folder / TOKENIZER_FILE) as sink:
        sink.write(tokenizer.read_bytes())

    def writer(name: str, schema: pa.Schema, shard_size: int = spec.shard_tokens, tokenizer: str = "") -> ShardWriter:
        return ShardWriter(context.folder / name, schema, source=facts, tokenizer=tokenizer, shard_size=shard_size)

    digest = sha256_file(tokenizer)
    tokens = {split: writer(f"tokens/{split}", TOKENS, tokenizer=digest) for split in SPLITS}
    documents = writer("documents", _SPLIT_DOCUMENTS, _TEXT_BYTES_PER_TOKEN * spec.shard_tokens)
    dropped, quarantined = writer("dropped", DROPPED), writer("quarantined", QUARANTINED)
    writers = (documents, dropped, quarantined, *tokens.values())
    with ExitStack() as stack:
        for shards in writers:
            remove_dataset(shards.folder)  # an earlier attempt may have ended between this and its result
            stack.enter_context(shards)
        dropped.write(corpus.dropped)
        quarantined.write(corpus.quarantined)
        for part, unit in zip(corpus.parts, encoded, strict=True):
            _stop_if_asked("All units are finished and kept; the shards are not written yet", context)
            splits = part.index["split"]
            documents.write(kept_documents(part.read, part.rows()).append_column("split", splits))
            for split, shards in tokens.items():
                shards.write(unit.table(TOKENS_FILE).filter(pc.equal(splits, split)))
    return {
        shards.folder.relative_to(context.folder).as_posix(): ShardDataset(shards.folder, verify=False)
        for shards in writers
    }


def _summary(
    spec: IngestSpec, corpus: _Corpus, datasets: Mapping[str, ShardDataset], facts: Mapping[str, str]
) -> dict[str, Any]:
    index = corpus.index
    text_bytes = pc.sum(index["bytes"]).as_py()
    tokens = sum(datasets[f"tokens/{split}"].tokens for split in SPLITS)
    counts = {"kept": len(index), "dropped": len(corpus.dropped), "quarantined": len(corpus.quarantined)}
    groups = index.group_by("group", use_threads=False).aggregate([("document", "count")])
    groups = groups.sort_by([("document_count", "descending"), ("group", "ascending")])
    quantiles = pc.quantile(index["bytes"], [0, 0.1, 0.5, 0.9, 1], interpolation="lower").to_pylist()
    return {
        "source": dict(facts),
        "documents": {"in": sum(counts.values()), **counts},
        "text_bytes": text_bytes,
        "tokens": tokens,
        "bytes_per_token": text_bytes / tokens,
        "splits": {split: _split_summary(index, datasets[f"tokens/{split}"], split) for split in SPLITS},
        "document_bytes": dict(zip(("smallest", "p10", "median", "p90", "largest"), quantiles, strict=True)),
        "group_count": len(groups),
        "groups": {row["group"]: row["document_count"] for row in groups.slice(0, _GROUPS_IN_SUMMARY).to_pylist()},
        "dropped_by_rule": _by_rule(corpus),
        "quarantined_first": corpus.quarantined.slice(0, 5).to_pylist(),
        "tokenizer": {
            "sha256": datasets["tokens/train"].tokenizer,
            "vocabulary": spec.tokenizer.vocabulary,
            "kind": "byte-level byte-pair encoding",
            "end": END,
        },
    }


def _split_summary(index: pa.Table, tokens: ShardDataset, split: str) -> dict[str, int]:
    text_bytes = pc.sum(index.filter(pc.field("split") == split)["bytes"]).as_py()
    return {"documents": tokens.rows, "text_bytes": text_bytes, "tokens": tokens.tokens, "shards": tokens.shards}


def _by_rule(corpus: _Corpus) -> dict[str, int]:
    counts = corpus.dropped["rule"].value_counts().to_pylist()
    return {row["values"]: row["counts"] for row in sorted(counts, key=lambda row: (-row["counts"], row["values"]))}


def _described(source: Source) -> dict[str, str]:
    return {"description": source.description, "language": source.language, "licence": source.licence}


def _report(summary: Mapping[str, Any], train: ShardDataset, context: Context) -> None:
    documents = summary["documents"]
    context.tracker.metrics(
        {
            "ingest/documents_in": documents["in"],
            "ingest/documents_kept": documents["kept"],
            "ingest/documents_dropped": documents["dropped"],
            "ingest/documents_quarantined": documents["quarantined"],
            "ingest/bytes": summary["text_bytes"],
            "ingest/tokens": summary["tokens"],
            "ingest/bytes_per_token": summary["bytes_per_token"],
        }
    )
    facts = {"digest": train.content, "rows": train.rows, "tokens": train.tokens, "source": summary["source"]}
    context.tracker.dataset("tokens/train", facts)
    context.events.say(
        f"{documents['in']} documents: {documents['kept']} kept, {documents['dropped']} dropped, "
        f"{documents['quarantined']} quarantined; {summary['tokens']:,} tokens of "
        f"{summary['bytes_per_token']:.2f} bytes"
    )
