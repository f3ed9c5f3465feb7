"""Ingest: raw items become documents, documents become tokens or values, and both become data sets.

    files --read units--> documents --dedup, split--> [train the tokenizer --encode units-->] [statistics -->] shards

Texts and captions are tokenised; images, audio and series become values with their statistics. The stage asks the
modality of the source what its items hold and knows none by name.

Units are worked on in any order by any number of workers, and put together in the order of the document ids: the
result is the same to the byte. A committed unit is never done again, by this ingestion or a later one of the data
folder (`ingest_units`): an interruption costs one unit a worker, and of new files only these and their neighbours are
read.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from foundation_core.data.rules.filters import rules_of
from foundation_core.data.rules.treatments import treatments_of
from foundation_core.data.sources.digests import content_of, source_digests
from foundation_core.data.sources.documents import SourceFile, open_source, sampled
from foundation_core.data.sources.modalities import Reader, ingest_key, open_reader, read_files
from foundation_core.data.sources.sight import MARK_FILE, sight_of
from foundation_core.data.sources.withdrawal import Withdrawal
from foundation_core.data.split import SPLITS
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE
from foundation_core.data.units.corpus import Corpus
from foundation_core.data.units.store import in_use
from foundation_core.data.units.work import read_unit
from foundation_core.data.values.features import FEATURES_FILE, Features, measure
from foundation_core.errors import ConfigError, DataError, DiskFullError
from foundation_core.files import sha256_file
from foundation_core.identity import ActionKey, content_hash
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context, Inputs
from foundation_core.stages.ingest_choice import chosen, split
from foundation_core.stages.ingest_digests import file_digests
from foundation_core.stages.ingest_needs import with_need
from foundation_core.stages.ingest_shards import write_datasets
from foundation_core.stages.ingest_summary import report, say_content_and_times, show_card, summarise
from foundation_core.stages.ingest_units import Job, encoded, evaluation_sets_unit, read, withdrawn_by
from foundation_core.store import StageResult
from foundation_core.train.threads import one_thread

if TYPE_CHECKING:
    from foundation_core.data.copies.contamination import Checked

_CHOICE = "choice"
"""Folder of what is known of the corpus while the stage runs."""
_COPIES = "unpacked"
"""Folder where packed files are unpacked to while they are read."""
_SAMPLED = 200
"""Texts whose language is looked at."""


def ingest(spec: IngestSpec, inputs: Inputs, context: Context) -> StageResult:
    """Tokens or samples of every split and what reads them, beside the documents kept, dropped and quarantined.

    Raises:
        ConfigError: no such source, modality or measure, or a vocabulary that the documents cannot fill.
        DataError: the source is missing, empty, unreadable in too large a part, or filtered out as a whole.
        DiskFullError: there is no room for it; the finished units are kept.
        SetupError: a library that the modality needs is not installed; a node does not see the folders; no memory.
        Stopped: somebody asked; the finished units are kept.
    """
    try:
        with in_use(context.units):
            return _ingested(spec, context)
    except DiskFullError as error:
        raise with_need(error, spec, context) from error
    finally:
        (context.folder / MARK_FILE).unlink(missing_ok=True)
        for scratch in (_CHOICE, _COPIES):
            shutil.rmtree(context.folder / scratch, ignore_errors=True)


def _ingested(spec: IngestSpec, context: Context) -> StageResult:
    start = time.perf_counter()
    compiled = spec.fuzzy_dedup.use or bool(spec.quality.filters())
    context.pool.prepare([read_unit.__module__, *(["foundation_core.data.units.ready"] if compiled else [])])
    source = open_source(spec.source)
    reader = open_reader(source, spec)
    _check_rules(spec, reader, source.modality)
    _check_texts(spec, reader)
    files = source.files()
    for found in getattr(source, "findings", ()):
        context.events.say(found)
    sight = sight_of(context.folder, files)
    digests = source_digests(files, lambda files: file_digests(files, spec, context, sight))
    content = content_of(digests)
    key = ingest_key(spec, content)
    checked = _checked(spec, key, context)
    treatments = treatments_of(spec, checked.rules if checked else ())
    job = Job(spec, reader, (source.modality, source.captioned), treatments, key, context, sight)
    job.watch.seconds["listing"] = time.perf_counter() - start

    withdrawal, withdrawn = Withdrawal(spec.source.withdrawn), Counter[str]()
    files = list(withdrawal.leaves(files, withdrawn))
    items = list(withdrawal.leaves(reader.modality.items(files), withdrawn))
    if not items:
        raise DataError("every document of the source is withdrawn", fix="shorten ingest.source.withdrawn")
    copies = context.folder / _COPIES
    shutil.rmtree(copies, ignore_errors=True)  # of an ingestion that was killed
    read_apart = [part for item in items for part in item.parts(spec.unit_bytes, copies)]
    _check_language(job, withdrawal, read_apart)
    reads = read(job, read_apart, digests, _sketch(job))
    shutil.rmtree(copies, ignore_errors=True)
    withdrawn += withdrawn_by(reads)
    withdrawal.require(withdrawn)
    with job.watch.of("deduplication"):
        corpus = chosen(spec, reads, _sketch(job), job, context.folder / _CHOICE)
    corpus = split(spec, corpus, items)
    tokens = encoded(job, corpus) if reader.has_text else None
    features = _features(job, corpus, source.modality) if reader.modality.values is not None else None
    described = {"description": source.description, "language": source.language, "licence": source.licence}
    facts = {"kind": spec.source.kind, "content": content, **described}
    with job.watch.of("writing"):
        datasets = write_datasets(job, corpus, tokens, features, facts)

    written = {TOKENIZER_FILE: tokens, FEATURES_FILE: features}
    outputs = {name: sha256_file(context.folder / name) for name, made in written.items() if made is not None}
    rows = {split: datasets[f"{reader.folder}/{split}"] for split in SPLITS}
    outputs |= {f"{reader.folder}/{split}/manifest.json": dataset.content for split, dataset in rows.items()}
    summary = summarise(spec, reader, corpus, rows, facts)
    summary |= {"modality": source.modality, "shape": job.shape.to_json(), "units": job.done}
    if withdrawn:
        summary["withdrawn"] = dict(sorted(withdrawn.items()))
    summary["decontamination"] = checked.describe(summary["dropped_by_rule"]) if checked else []
    if features is not None:
        summary["statistics"] = {"mean": features.statistics.mean, "std": features.statistics.std}
    content = content_hash(outputs)
    account = {"documents": summary["documents"], "corpus": content}
    for dataset in datasets.values():
        dataset.state(**account)
    report(summary, f"{reader.folder}/train", rows["train"], context)
    say_content_and_times(content, job.watch.seconds, context)
    show_card(spec, summary, outputs, context)
    return StageResult(outputs, summary, time.perf_counter() - start)


def _check_rules(spec: IngestSpec, reader: Reader, modality: str) -> None:
    """Refuse rules on texts where items have none."""
    if spec.quality.by_language and not reader.has_text:
        raise ConfigError(
            f"ingest.quality.language=each looks for the language of texts, and this source's {modality} items have"
            " none",
            fix="remove ingest.quality.language, or choose a source with captions",
        )
    rules = rules_of(spec)
    if (rules or spec.decontamination.sets) and not reader.has_text:
        names = ", ".join(dict.fromkeys(rule.filter.measure for rule in rules)) or "contamination"
        field = "ingest.filters" if spec.filters else "ingest.quality" if rules else "ingest.decontamination"
        raise ConfigError(
            f"{field} measures texts ({names}), and this source's {modality} items have none",
            fix=f"remove {field}, or choose a source with captions",
        )


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


def _checked(spec: IngestSpec, key: ActionKey, context: Context) -> Checked | None:
    if not spec.decontamination.sets:
        return None
    from foundation_core.data.copies.contamination import check_against  # compiled code, which few ingestions need

    context.events.phase("evaluation sets")
    return check_against(spec.decontamination, evaluation_sets_unit(key, context.units))


def _check_language(job: Job, withdrawal: Withdrawal, parts: Sequence[SourceFile]) -> None:
    """Look at a sample of the texts, before lists of one language are applied to texts of another."""
    quality = job.spec.quality
    uses_lists = quality.filters() or job.spec.cleaning.lines.of_a_language
    if uses_lists and quality.least_language_share and job.reader.has_text and not quality.by_language:
        from foundation_core.data.rules.language import check_language, said_of_others, shares

        of_sample = withdrawal.leaves(sampled(parts, _SAMPLED, job.spec.unit_bytes), Counter())
        sample = (read_files([item], job.reader)[0] for item in of_sample)
        found = shares(text for one in sample for text in one["text"].to_pylist())
        check_language(quality, found)
        if told := said_of_others(quality, found):
            job.context.events.say(told)


def _sketch(job: Job) -> Callable[[pa.Array], pa.Array] | None:
    if not job.spec.fuzzy_dedup.use:
        return None
    from foundation_core.data.copies.minhash import Sketch  # compiled code, which few ingestions need

    return Sketch.of(job.spec.fuzzy_dedup)


def _features(job: Job, corpus: Corpus, modality: str) -> Features:
    """What turns items into inputs, with the statistics of the training documents alone."""
    job.context.events.phase("statistics")
    job.stop_if_asked("The statistics are not taken yet; all that was read is kept")
    with one_thread():  # several would add in an order of their own
        statistics = measure((part.documents("train") for part in corpus.parts), job.reader.modality.shape)
    spec = job.spec.model_dump(mode="json", include=set(job.reader.modality.reads))
    return Features(modality, spec, job.shape, statistics)
