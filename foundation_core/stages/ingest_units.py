"""The units of an ingestion: what each is named by, so that any later ingestion of the data folder finds it again.

    documents, how they are read --> units/read/..       (nothing of other documents)
    training texts, tokenizer's spec --> units/tokenizer/..
    tokenizer, texts that stay --> units/encode/..
    rows, tokenizer --> units/shards/..                  (`data/shard_units`)

Units end where hashes of document ids say so, and where the source changes: a document that joins, leaves or changes
has one unit done anew, or two.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from foundation_core.data.rules.treatments import Treatments
from foundation_core.data.shards.boundaries import cut
from foundation_core.data.sources.documents import SourceFile
from foundation_core.data.sources.modalities import Reader
from foundation_core.data.sources.sight import Seeing, Sight
from foundation_core.data.sources.withdrawal import Withdrawal
from foundation_core.data.stopwatch import Stopwatch
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE
from foundation_core.data.tokens.kinds import vocabulary_of
from foundation_core.data.tokens.training import TokenizerPiece, train_unit
from foundation_core.data.units.corpus import Corpus, Part
from foundation_core.data.units.work import (
    KEPT_FILE,
    QUARANTINED_FILE,
    EncodePiece,
    ReadDone,
    ReadPiece,
    Unit,
    encode_unit,
    read_unit,
)
from foundation_core.errors import Stopped
from foundation_core.files import sha256_file, sha256_json, write_json
from foundation_core.identity import ActionKey
from foundation_core.shape import SampleShape
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest_choice import too_many_quarantined
from foundation_core.store import UNITS_FILE

_BEHIND_READING = (
    "exact_dedup", "paragraph_dedup", "fuzzy_dedup", "split", "tokenizer", "shard_tokens", "quarantine_fraction",
)  # fmt: skip
"""Fields of an `IngestSpec` that are of use when all units are read; sketches are made before, and said apart."""
_OF_THE_LIST = ("pattern", "parts", "withdrawn")
"""Fields of a `SourceSpec` that say which documents there are: a unit names its own."""
_OF_TOKENIZERS = ("tokenizers", "fastokens", "sentencepiece")
OF_ENCODING = ("pyarrow", "tokenizers", "fastokens")


@dataclass(frozen=True)
class Job:
    """One ingestion.

    Args:
        source: what its source says of its items: modality, and whether they have captions.
        treatments: of the documents.
        sight: what every process that works on it must see.
        done: for each phase, how many units were there already and how many were done.
        watch: where the time of this process and of the workers went.
    """

    spec: IngestSpec
    reader: Reader
    source: Sequence[Any]
    treatments: Treatments
    key: ActionKey
    context: Context
    sight: Sight
    done: dict[str, dict[str, int]] = field(default_factory=dict)
    watch: Stopwatch = field(default_factory=Stopwatch)

    def unit(self, phase: str, number: int, documents: Sequence[str]) -> Unit:
        """A unit of work of a phase that depends on all documents: another ingestion has no use for it."""
        return Unit.of(self.context.units, phase, [self.key.digest, number, documents])

    def found(self, step: str, decides: Any) -> Unit:
        """The unit of what a step finds among all documents: any ingestion of the same documents has a use for it."""
        self.context.events.phase(step)
        unit = Unit.of(self.context.units, step, [_code(self.key), decides])
        there = unit.claimed()
        self.count(step, int(there), int(not there))
        self.stop_if_asked(f"{step} are not looked for yet; all that was read is kept")
        return unit

    def finish(
        self, phase: str, function: Callable[[Any], Any], pieces: Sequence[Any], *,
        heard: Callable[[Any], None] | None = None, found: Callable[[Unit], None] | None = None,
    ) -> None:  # fmt: skip
        """Do every piece whose unit is not finished yet.

        Args:
            heard: is told what the function returns, as pieces finish.
            found: is told each unit that was there already.
        """
        context = self.context
        context.events.phase(phase)
        waiting = []
        for piece in pieces:
            if not piece.unit.claimed():
                waiting.append(piece)
            elif found is not None:
                found(piece.unit)
        there = done = len(pieces) - len(waiting)
        self.count(phase, there, len(waiting))
        if waiting:  # a pool may cost processes even for nothing
            for told in context.pool.map(Seeing(function, self.sight), waiting, self.spec.workers):
                done += 1
                context.events.progress(done, len(pieces), "units")
                if heard is not None:
                    heard(told)
                self.stop_if_asked(f"{phase}: {done} of {len(pieces)} units are finished and kept")
        for piece in waiting:
            piece.unit.wait_until_seen()

    def count(self, phase: str, reused: int, done: int) -> None:
        """Note, and say, how many units of a phase were there already."""
        self.done[phase] = {"reused": reused, "done": done}
        if reused:
            self.context.events.say(f"{phase}: {reused} of {reused + done} units were there already")

    def stop_if_asked(self, where: str) -> None:
        """Leave if somebody asked.

        Raises:
            Stopped: somebody did.
        """
        if self.context.stop.requested():
            raise Stopped(f"ingest stopped. {where}", fix="run the same command again to continue")

    @property
    def shape(self) -> SampleShape:
        """What one sample looks like."""
        return self.reader.shape(vocabulary_of(self.spec.tokenizer))


def evaluation_sets_unit(key: ActionKey, root: Path) -> Unit:
    """The unit that holds what documents are checked against."""
    return Unit.of(root, "evaluation sets", [_code(key), key.parts["spec"]["decontamination"], _sets(key)])


def read(
    job: Job, items: Sequence[SourceFile], digests: Mapping[str, str], sketch: Callable[[pa.Array], pa.Array] | None
) -> list[Unit]:
    """The units of all items, read and filtered, in the order of ids.

    Args:
        items: what workers read apart.
        digests: of those of them whose digest is known.
        sketch: what fuzzy deduplication compares.
    """
    withdrawal, reads, most = Withdrawal(job.spec.source.withdrawn), list[ReadPiece](), list[int | None]()
    for source, some in groupby(items, lambda item: item.source):
        reading = _reading(job, source)
        for files in cut(some, job.spec.unit_bytes, lambda item: (item.document, item.bytes)):
            within = Withdrawal({pattern for file in files for pattern in withdrawal.within(file).patterns})
            known = [_named(file, digests, job.reader) for file in files]
            most += [file.most_documents() for file in files]
            unit = Unit.of(job.context.units, "read", [reading, within.patterns, known])
            reads.append(ReadPiece(unit, files, job.reader, job.treatments, sketch, within))
    units = [piece.unit for piece in reads]
    budget = Budget(job.spec.quarantine_fraction, units, most)

    def heard(told: ReadDone) -> None:
        job.watch.add(told.seconds)
        budget.spend(told.quarantined)

    job.finish("read", read_unit, reads, heard=heard, found=lambda unit: budget.spend(unit.facts()["quarantined"]))
    names = [unit.folder.relative_to(job.context.units).as_posix() for unit in units]
    write_json(job.context.folder / UNITS_FILE, {"read": names})
    return units


class Budget:
    """How many documents may not be readable, looked at while units come in: no order of theirs decides anything.

    Args:
        units: all of them, of which some may be there already.
        most: documents that each of what they are made of may hold.
    """

    def __init__(self, fraction: float, units: Sequence[Unit], most: Sequence[int | None]) -> None:
        self._fraction, self._units, self._quarantined = fraction, units, 0
        known = [count for count in most if count is not None]
        self._most = sum(known) if len(known) == len(most) else None

    def spend(self, quarantined: int) -> None:
        """Note that some documents could not be read.

        Raises:
            DataError: there are more of them than there may be in the end, whatever is still to come.
        """
        self._quarantined += quarantined
        if self._most is None or self._quarantined <= self._fraction * self._most:
            return
        finished = (unit for unit in self._units if (unit.folder / QUARANTINED_FILE).exists())
        first = (row for unit in finished for row in unit.table(QUARANTINED_FILE).slice(0, 3).to_pylist())
        raise too_many_quarantined(self._quarantined, f"at most {self._most}", list(islice(first, 3)), self._fraction)


def _named(file: SourceFile, digests: Mapping[str, str], reader: Reader) -> list[str]:
    """All that decides what is read of a file, beside the spec. Its splits do not: they are looked up later."""
    digest = digests.get(file.document) or file.digest()
    return [file.document, digest, file.group, file.source, file.licence or reader.licence]


def _reading(job: Job, source: str) -> Any:
    """All that decides how documents of a source are read and judged."""
    spec = job.key.parts["spec"]
    of_source = spec["source"]["parts"].get(source, spec["source"])
    return [
        _code(job.key),
        list(job.source),
        {name: value for name, value in spec.items() if name not in ("source", *_BEHIND_READING)},
        {name: value for name, value in of_source.items() if name not in _OF_THE_LIST},
        _sets(job.key),
        spec["fuzzy_dedup"] if job.spec.fuzzy_dedup.use else None,
    ]


def _code(key: ActionKey) -> Any:
    """The code and the libraries, but for those of tokenizers."""
    return [key.parts["code"], {name: of for name, of in key.parts["libraries"].items() if name not in _OF_TOKENIZERS}]


def _sets(key: ActionKey) -> Any:
    """The digests of the evaluation sets, and of a list of words."""
    return {name: digest for name, digest in key.parts["inputs"].items() if name not in ("source", "tokenizer")}


class Tokens(NamedTuple):
    """The tokenizer's file, and the unit of tokens of each part."""

    tokenizer: Path
    units: Sequence[Unit]


def encoded(job: Job, corpus: Corpus) -> Tokens:
    """The tokens of every text or caption."""
    with job.watch.of("tokenizer"):
        tokenizer = _tokenizer(job, corpus)
    libraries = {name: job.key.parts["libraries"][name] for name in OF_ENCODING}
    made_by = [job.key.parts["code"], libraries, sha256_file(tokenizer)]
    waiting = [
        EncodePiece(
            Unit.of(job.context.units, "encode", [made_by, _texts(part)]), part.read, tuple(part.rows().to_pylist()),
            tokenizer,
        )
        for part in corpus.parts
    ]  # fmt: skip
    job.finish("encode", encode_unit, waiting, heard=job.watch.add)
    return Tokens(tokenizer, [piece.unit for piece in waiting])


def _texts(part: Part) -> str:
    """A digest of the documents of a part that stay, and of what they hold."""
    kept = part.read.table(KEPT_FILE).select(["document", "group", "sha256"]).take(part.rows())
    return sha256_json([column.to_pylist() for column in kept.columns])


def _tokenizer(job: Job, corpus: Corpus) -> Path:
    """The tokenizer's file, trained on the training documents alone, or the existing one."""
    job.context.events.phase("tokenizer")
    key = job.key.parts
    decides = [key["code"], key["libraries"], key["spec"]["tokenizer"], key["inputs"].get("tokenizer")]
    if job.spec.tokenizer.kind != "existing":
        decides.append(_training_texts(corpus))
    unit = Unit.of(job.context.units, "tokenizer", decides)
    if not unit.claimed():
        job.stop_if_asked("The tokenizer is not trained yet; all that was read is kept")
        piece = TokenizerPiece(unit, corpus, job.spec.tokenizer, job.reader.value_bytes)
        list(job.context.pool.map(Seeing(train_unit, job.sight), [piece], 1))
        unit.wait_until_seen()
    return unit.folder / TOKENIZER_FILE


def _training_texts(corpus: Corpus) -> str:
    """A digest of the training documents, in their order: ids, which decide what a sample holds, and texts."""
    digest = hashlib.sha256()
    for part in corpus.parts:
        known = part.read.table(KEPT_FILE).select(["document", "sha256"]).take(part.rows("train"))
        digest.update(sha256_json([column.to_pylist() for column in known.columns]).encode())
    return digest.hexdigest()


def withdrawn_by(reads: Sequence[Unit]) -> Counter[str]:
    """What was left out of the units, by the pattern that names it."""
    withdrawn = Counter[str]()
    for unit in reads:
        withdrawn.update(unit.facts()["withdrawn"])
    return withdrawn
