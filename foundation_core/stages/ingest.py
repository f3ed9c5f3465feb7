"""Ingest: raw items become documents, documents become tokens or values, and both become data sets.

    files --read units--> documents --dedup, split--> [train the tokenizer --encode units-->] [statistics -->] shards

Texts and captions are tokenised; images, audio and series become values with their statistics. The stage asks the
modality of the source what its items hold and knows none by name.

Units are worked on in any order by any number of workers, and put together in the order of the document ids: the
result is the same to the byte. A committed unit is never done again, so an interruption costs one unit a worker.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.corpus import Corpus
from foundation_core.data.documents import SourceFile, open_source, sampled, source_content
from foundation_core.data.features import FEATURES_FILE, Features, measure
from foundation_core.data.filters import DROPPED, Rule, rules_of
from foundation_core.data.modalities import QUARANTINED, Reader, ingest_key, open_reader, read_files
from foundation_core.data.shards import ShardDataset, ShardWriter, remove_dataset
from foundation_core.data.split import SPLITS
from foundation_core.data.steps.chain import steps_of
from foundation_core.data.tokenizer import TOKENIZER_FILE
from foundation_core.data.tokenizer_kinds import make_tokenizer, vocabulary_of
from foundation_core.data.units import (
    TOKENS,
    TOKENS_FILE,
    EncodePiece,
    ReadPiece,
    Unit,
    encode_unit,
    read_unit,
)
from foundation_core.errors import ConfigError, DiskFullError, Stopped
from foundation_core.files import committed, sha256_file, sha256_json
from foundation_core.shape import SampleShape
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context, Inputs
from foundation_core.stages.ingest_choice import chosen, split, training_texts
from foundation_core.stages.ingest_needs import with_need
from foundation_core.stages.ingest_summary import report, show_card, summarise
from foundation_core.store import StageResult
from foundation_core.train.threads import one_thread

if TYPE_CHECKING:
    from foundation_core.data.contamination import Checked

_CHOICE = "choice"
"""Folder of what is known of the corpus while the stage runs."""
_SAMPLED = 200
"""Texts whose language is looked at."""
_BYTES_PER_TOKEN = 4  # so that shards of documents and values and shards of tokens are about as many


@dataclass(frozen=True)
class _Job:
    """One ingestion.

    Args:
        work: digest of the action key, which names its units.
    """

    spec: IngestSpec
    reader: Reader
    rules: tuple[Rule, ...]
    work: str
    context: Context

    def unit(self, phase: str, number: int, documents: Sequence[str]) -> Unit:
        """A unit of work of a phase."""
        identity = sha256_json([self.work, phase, documents])
        return Unit(self.context.folder / "units" / f"{phase}-{number:05d}", identity)

    def finish(self, phase: str, function: Callable[[Any], None], pieces: Sequence[Any]) -> None:
        """Do every piece whose unit is not finished yet."""
        _finish(phase, function, pieces, self)

    @property
    def shape(self) -> SampleShape:
        """What one sample looks like."""
        return self.reader.shape(vocabulary_of(self.spec.tokenizer))


@dataclass(frozen=True)
class _Tokens:
    """The tokenizer's file, and the unit of tokens of each part."""

    tokenizer: Path
    units: Sequence[Unit]


def ingest(spec: IngestSpec, inputs: Inputs, context: Context) -> StageResult:
    """Tokens or samples of every split and what reads them, beside the documents kept, dropped and quarantined.

    Raises:
        ConfigError: no such source, modality or measure, or a vocabulary that the documents cannot fill.
        DataError: the source is missing, empty, unreadable in too large a part, or filtered out as a whole.
        DiskFullError: there is no room for it; the finished units are kept.
        SetupError: a library that the modality needs is not installed.
        Stopped: somebody asked; the finished units are kept.
    """
    try:
        return _ingested(spec, inputs, context)
    except DiskFullError as error:
        raise with_need(error, spec, context.folder) from error
    finally:
        shutil.rmtree(context.folder / _CHOICE, ignore_errors=True)


def _ingested(spec: IngestSpec, inputs: Inputs, context: Context) -> StageResult:
    start = time.perf_counter()
    compiled = spec.fuzzy_dedup.use or bool(spec.quality.filters())
    context.pool.prepare([read_unit.__module__, *(["foundation_core.data.ready"] if compiled else [])])
    source = open_source(spec.source)
    reader = open_reader(source, spec)
    rules = _rules(spec, reader, source.modality)
    _check_texts(spec, reader)
    files = source.files()
    content = source_content(files)
    work = ingest_key(spec, content).digest
    checked = _checked(spec, work, context)
    job = _Job(spec, reader, (*checked.rules, *rules) if checked else rules, work, context)

    items = reader.modality.items(files)
    _check_language(job, items)
    reads = _read(job, items)
    context.events.phase("copies")
    corpus = chosen(spec, reads, _sketch(job), job, context.folder / _CHOICE)
    corpus = split(spec, corpus, items)
    tokens = _tokens(job, corpus) if reader.has_text else None
    features = _features(job, corpus, source.modality) if reader.modality.values is not None else None
    described = {"description": source.description, "language": source.language, "licence": source.licence}
    facts = {"kind": spec.source.kind, "content": content, **described}
    datasets = _write(job, corpus, tokens, features, facts)

    written = {TOKENIZER_FILE: tokens, FEATURES_FILE: features}
    outputs = {name: sha256_file(context.folder / name) for name, made in written.items() if made is not None}
    rows = {split: datasets[f"{reader.folder}/{split}"] for split in SPLITS}
    outputs |= {f"{reader.folder}/{split}/manifest.json": dataset.content for split, dataset in rows.items()}
    summary = summarise(spec, reader, corpus, rows, facts)
    summary |= {"modality": source.modality, "shape": job.shape.to_json()}
    summary["decontamination"] = checked.describe(summary["dropped_by_rule"]) if checked else []
    if features is not None:
        summary["statistics"] = {"mean": features.statistics.mean, "std": features.statistics.std}
    report(summary, f"{reader.folder}/train", rows["train"], context)
    show_card(spec, summary, outputs, context)
    return StageResult(outputs, summary, time.perf_counter() - start)


def _rules(spec: IngestSpec, reader: Reader, modality: str) -> tuple[Rule, ...]:
    rules = rules_of(spec)
    if (rules or spec.decontamination.sets) and not reader.has_text:
        names = ", ".join(dict.fromkeys(rule.filter.measure for rule in rules)) or "contamination"
        field = "ingest.filters" if spec.filters else "ingest.quality" if rules else "ingest.decontamination"
        raise ConfigError(
            f"{field} measures texts ({names}), and this source's {modality} items have none",
            fix=f"remove {field}, or choose a source with captions",
        )
    return rules


def _check_texts(spec: IngestSpec, reader: Reader) -> None:
    """Refuse what changes or compares texts where an item is more than its text."""
    used = {
        ("cleaning", "changes"): spec.cleaning.in_use,
        ("paragraph_dedup", "compares"): spec.paragraph_dedup.use,
        ("fuzzy_dedup", "compares"): spec.fuzzy_dedup.use,
    }
    for field, does in (what for what, use in used.items() if use and reader.modality.values is not None):
        raise ConfigError(
            f"ingest.{field} {does} texts, and this source's items are more than their captions",
            fix=f"remove ingest.{field}; ingest.exact_dedup compares values and captions",
        )


def _checked(spec: IngestSpec, work: str, context: Context) -> Checked | None:
    if not spec.decontamination.sets:
        return None
    from foundation_core.data.contamination import check_against  # compiled code, which few ingestions need

    context.events.phase("evaluation sets")
    unit = Unit(context.folder / "units" / "evaluation-sets", sha256_json([work, "evaluation sets"]))
    return check_against(spec.decontamination, unit)


def _check_language(job: _Job, items: Sequence[SourceFile]) -> None:
    """Look at a sample of the texts, before rules of one language are applied to texts of another."""
    if job.spec.quality.filters() and job.spec.quality.least_language_share:
        from foundation_core.data.language import check_language, shares

        sample = (read_files([item], job.reader)[0] for item in sampled(items, _SAMPLED, job.spec.unit_bytes))
        check_language(job.spec.quality, shares(text for one in sample for text in one["text"].to_pylist()))


def _read(job: _Job, items: Sequence[SourceFile]) -> list[Unit]:
    pieces, sketch, steps = [], _sketch(job), steps_of(job.spec)
    parts = (part for item in items for part in item.parts(job.spec.unit_bytes))
    for number, part in enumerate(_cut(parts, job.spec.unit_bytes)):
        unit = job.unit("read", number, [item.document for item in part])
        pieces.append(ReadPiece(unit, part, job.reader, job.rules, steps, sketch))
    _finish("read", read_unit, pieces, job)
    return [piece.unit for piece in pieces]


def _sketch(job: _Job) -> Callable[[pa.Array], pa.Array] | None:
    if not job.spec.fuzzy_dedup.use:
        return None
    from foundation_core.data.minhash import Sketch  # compiled code, which few ingestions need

    return Sketch.of(job.spec.fuzzy_dedup)


def _cut(items: Iterable[SourceFile], unit_bytes: int) -> Iterator[tuple[SourceFile, ...]]:
    """The items in units of at most `unit_bytes` each; a larger one is a unit of its own."""
    part, size = list[SourceFile](), 0
    for item in items:
        if part and size + item.bytes > unit_bytes:
            yield tuple(part)
            part, size = [], 0
        part.append(item)
        size += item.bytes
    if part:
        yield tuple(part)


def _finish(phase: str, function: Callable[[Any], None], pieces: Sequence[Any], job: _Job) -> None:
    """Do every piece whose unit is not finished yet."""
    context = job.context
    context.events.phase(phase)
    waiting = [piece for piece in pieces if not piece.unit.finished()]
    done = len(pieces) - len(waiting)
    if done:
        context.events.say(f"{phase}: {done} of {len(pieces)} units were finished before")
    if waiting:  # a pool may cost processes even for nothing
        for _ in context.pool.map(function, waiting, job.spec.workers):
            done += 1
            context.events.progress(done, len(pieces), "units")
            _stop_if_asked(f"{phase}: {done} of {len(pieces)} units are finished and kept", context)


def _stop_if_asked(where: str, context: Context) -> None:
    if context.stop.requested():
        raise Stopped(f"ingest stopped. {where}", fix="run the same command again to continue")


def _tokens(job: _Job, corpus: Corpus) -> _Tokens:
    """The tokens of every text or caption."""
    tokenizer = _tokenizer(job, corpus)
    pieces = []
    for number, part in enumerate(corpus.parts):
        unit = job.unit("encode", number, part.index["document"].to_pylist())
        pieces.append(EncodePiece(unit, part.read, tuple(part.rows().to_pylist()), tokenizer))
    _finish("encode", encode_unit, pieces, job)
    return _Tokens(tokenizer, [piece.unit for piece in pieces])


def _tokenizer(job: _Job, corpus: Corpus) -> Path:
    """The tokenizer's file, trained on training documents alone."""
    job.context.events.phase("tokenizer")
    unit = Unit(job.context.folder / "units" / "tokenizer", sha256_json([job.work, "tokenizer"]))
    if not unit.finished():
        _stop_if_asked("The tokenizer is not trained yet; all that was read is kept", job.context)
        texts = training_texts(corpus, job.spec.tokenizer.training_bytes, job.reader.value_bytes)
        tokenizer = make_tokenizer(texts, job.spec.tokenizer)
        unit.commit({TOKENIZER_FILE: tokenizer.to_str(pretty=True).encode()})
    return unit.folder / TOKENIZER_FILE


def _features(job: _Job, corpus: Corpus, modality: str) -> Features:
    """What turns items into inputs, with the statistics of the training documents alone."""
    job.context.events.phase("statistics")
    _stop_if_asked("The statistics are not taken yet; all that was read is kept", job.context)
    with one_thread():  # several would add in an order of their own
        statistics = measure((part.documents("train") for part in corpus.parts), job.reader.modality.shape)
    spec = job.spec.model_dump(mode="json", include=set(job.reader.modality.reads))
    return Features(modality, spec, job.shape, statistics)


def _write(
    job: _Job, corpus: Corpus, tokens: _Tokens | None, features: Features | None, facts: Mapping[str, str]
) -> dict[str, ShardDataset]:
    """Every data set of the result, written from the units in their order."""
    context, reader, bytes_per_shard = job.context, job.reader, _BYTES_PER_TOKEN * job.spec.shard_tokens
    context.events.phase("write")
    digest = ""
    if tokens is not None:
        with committed(context.folder / TOKENIZER_FILE) as sink:
            sink.write(tokens.tokenizer.read_bytes())
        digest = sha256_file(tokens.tokenizer)
    if features is not None:
        features.save(context.folder)

    def writer(name: str, schema: pa.Schema, shard_size: int, tokenizer: str = "") -> ShardWriter:
        return ShardWriter(context.folder / name, schema, source=facts, tokenizer=tokenizer, shard_size=shard_size)

    rows_size = job.spec.shard_tokens if features is None else bytes_per_shard
    rows = {split: writer(f"{reader.folder}/{split}", _rows(reader), rows_size, digest) for split in SPLITS}
    split_documents = reader.described.insert(2, pa.field("split", pa.string()))
    documents = writer("documents", split_documents, bytes_per_shard)
    dropped = writer("dropped", DROPPED, job.spec.shard_tokens)
    quarantined = writer("quarantined", QUARANTINED, job.spec.shard_tokens)
    writers = (documents, dropped, quarantined, *rows.values())
    with ExitStack() as stack:
        for shards in writers:
            remove_dataset(shards.folder)  # an earlier attempt may have ended between this and its result
            stack.enter_context(shards)
        for some in corpus.dropped():
            dropped.write(some)
        for some in corpus.quarantined():
            quarantined.write(some)
        for number, part in enumerate(corpus.parts):
            _stop_if_asked("All units are finished and kept; the shards are not written yet", context)
            splits = part.index["split"]
            table = part.documents().append_column("split", splits)
            documents.write(table)
            if tokens is not None:
                table = table.append_column("caption", table["text"])
                table = table.append_column("tokens", tokens.units[number].table(TOKENS_FILE)["tokens"])
            for split, shards in rows.items():
                shards.write(table.filter(pc.equal(splits, split)))
    return {
        shards.folder.relative_to(context.folder).as_posix(): ShardDataset(shards.folder, verify=False)
        for shards in writers
    }


def _rows(reader: Reader) -> pa.Schema:
    """The columns of what models are trained on."""
    if reader.modality.values is None:
        return TOKENS
    samples = TOKENS.remove(TOKENS.get_field_index("tokens")).append(reader.schema.field("values"))
    if not reader.captioned:
        return samples
    return samples.append(TOKENS.field("tokens")).append(pa.field("caption", pa.large_string()))
