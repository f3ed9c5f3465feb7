"""The data sets of a result: its rows in the order of their ids, in shards that other results may have too.

    units of read documents, of tokens --what decides each row--> writers --> units/shards/.. --> documents, tokens, ...

What documents hold is read shard by shard, and only of shards that nobody has made yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.rules.filters import DROPPED
from foundation_core.data.shards.dataset import Rows, ShardDataset, ShardWriter, remove_dataset
from foundation_core.data.shards.shared import PHASE, SharedShards
from foundation_core.data.sources.modalities import QUARANTINED, Reader
from foundation_core.data.split import SPLITS
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE
from foundation_core.data.units.corpus import Corpus, Part
from foundation_core.data.units.work import KEPT_FILE, TOKENS, TOKENS_FILE, Unit
from foundation_core.data.values.features import Features
from foundation_core.files import committed, sha256_file
from foundation_core.stages.ingest_units import OF_ENCODING, Job, Tokens

_BYTES_PER_TOKEN = 4  # so that shards of documents and values and shards of tokens are about as many
_HELD = ("text", "values")
"""Columns of what a document holds; its `sha256` stands for them in what decides a row."""


def write_datasets(
    job: Job, corpus: Corpus, tokens: Tokens | None, features: Features | None, facts: Mapping[str, str]
) -> dict[str, ShardDataset]:
    """Every data set of the result, by its folder, and the files that read it.

    Args:
        facts: what the manifests say of the source.
    """
    context, reader, bytes_per_shard = job.context, job.reader, _BYTES_PER_TOKEN * job.spec.shard_tokens
    context.events.phase("write")
    digest = ""
    if tokens is not None:
        with committed(context.folder / TOKENIZER_FILE) as sink:
            sink.write(tokens.tokenizer.read_bytes())
        digest = sha256_file(tokens.tokenizer)
    if features is not None:
        features.save(context.folder)
    libraries = {name: job.key.parts["libraries"][name] for name in OF_ENCODING}
    make = SharedShards(context.units, [job.key.parts["code"], libraries, digest])

    def writer(name: str, schema: pa.Schema, shard_size: int, tokenizer: str = "") -> ShardWriter:
        return ShardWriter(
            context.folder / name, schema, source=facts, tokenizer=tokenizer, shard_size=shard_size, make=make
        )

    rows_size = job.spec.shard_tokens if features is None else bytes_per_shard
    rows = {split: writer(f"{reader.folder}/{split}", _rows(reader), rows_size, digest) for split in SPLITS}
    split_documents = reader.described.insert(2, pa.field("split", pa.string()))
    documents = writer("documents", split_documents, bytes_per_shard)
    dropped = writer("dropped", DROPPED, bytes_per_shard)
    quarantined = writer("quarantined", QUARANTINED, job.spec.shard_tokens)
    writers = (documents, dropped, quarantined, *rows.values())
    with ExitStack() as stack:
        for shards in writers:
            remove_dataset(shards.folder)  # an earlier attempt may have ended between this and its result
            stack.enter_context(shards)
        for some in corpus.dropped():
            dropped.add(_of_dropped(some))
        for some in corpus.quarantined():
            quarantined.write(some)
        for number, part in enumerate(corpus.parts):
            job.stop_if_asked("All units are finished and kept; the shards are not written yet")
            held = _Held(part, reader, None if tokens is None else tokens.units[number])
            documents.add(held.documents())
            for split, shards in rows.items():
                shards.add(held.rows(split))
    job.count(PHASE, **make.done)
    return {
        shards.folder.relative_to(context.folder).as_posix(): ShardDataset(shards.folder, verify=False)
        for shards in writers
    }


def _of_dropped(table: pa.Table) -> Rows:
    """Dropped documents on their way into a shard: each as large as a token, and as what is kept of its text."""
    texts = pc.fill_null(pc.cast(pc.binary_length(table["text"]), pa.int64()), 0)
    return Rows(table, pc.add(texts, _BYTES_PER_TOKEN), table.slice)


@dataclass(frozen=True)
class _Held:
    """The documents of a part that stay, for the shards of the data sets that they go into.

    Args:
        tokens: the unit with a row of tokens for each.
    """

    part: Part
    reader: Reader
    tokens: Unit | None

    @cached_property
    def known(self) -> pa.Table:
        """Everything of them but what they hold, with their splits."""
        table = self.part.read.table(KEPT_FILE)
        known = table.select([name for name in table.schema.names if name not in _HELD]).take(self.part.rows())
        return known.append_column("split", self.part.index["split"])

    def documents(self) -> Rows:
        """As rows of `documents`: each is decided by all that is known of it."""
        places = self._every()
        return Rows(self.known, self.known["bytes"], lambda start, count: self._whole(places.slice(start, count)))

    def rows(self, split: str) -> Rows:
        """Those of a split as rows that models are trained on: each is decided by what it holds, and its names."""
        places = self._every().filter(pc.equal(self.known["split"], split).combine_chunks())
        if self.reader.modality.values is None:
            sizes = pc.cast(pc.list_value_length(self._tokens()), pa.int64())
        else:
            sizes = pa.repeat(pa.scalar(self.reader.value_bytes, pa.int64()), len(self.known))
        known = self.known.select(["document", "group", "sha256"]).take(places)
        return Rows(known, sizes.take(places), lambda start, count: self._whole(places.slice(start, count), rows=True))

    def _every(self) -> pa.Array:
        return pa.array(range(len(self.known)), pa.int64())

    def _whole(self, places: pa.Array, rows: bool = False) -> pa.Table:
        """Some of the documents with what they hold; as rows that models are trained on, if wanted."""
        of_unit = self.part.rows().take(places)
        table, held = self.known.take(places), self.part.read.table(KEPT_FILE)
        wanted = _rows(self.reader).names if rows else ["text"]
        if "text" in wanted and self.reader.has_text:
            table = table.append_column("text", held["text"].take(of_unit))
        if "caption" in wanted:
            table = table.append_column("caption", held["text"].take(of_unit))
        if "values" in wanted:
            table = table.append_column(held.schema.field("values"), held["values"].take(of_unit))
        if "tokens" in wanted:
            table = table.append_column("tokens", self._tokens().take(places))
        return table

    def _tokens(self) -> pa.ChunkedArray:
        assert self.tokens is not None
        return self.tokens.table(TOKENS_FILE)["tokens"]


def _rows(reader: Reader) -> pa.Schema:
    """The columns of what models are trained on."""
    if reader.modality.values is None:
        return TOKENS
    samples = TOKENS.remove(TOKENS.get_field_index("tokens")).append(reader.schema.field("values"))
    if not reader.captioned:
        return samples
    return samples.append(TOKENS.field("tokens")).append(pa.field("caption", pa.large_string()))
