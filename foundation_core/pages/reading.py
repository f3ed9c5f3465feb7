"""The data sets of an ingestion, found in its folder, and a few of their columns, shard by shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.shards.dataset import MANIFEST, ShardDataset, read_arrow
from foundation_core.data.split import SPLITS
from foundation_core.data.units.work import KEPT_FILE
from foundation_core.errors import DataError
from foundation_core.files import read_json
from foundation_core.store import UNITS_FILE, UNITS_FOLDER

DOCUMENTS, DROPPED, QUARANTINED = "documents", "dropped", "quarantined"
_FOLDERS = ("tokens", "samples")


class Corpus(NamedTuple):
    """The data sets of a finished ingestion; their sizes are checked, their hashes are not.

    Args:
        rows: what models are trained on, by split.
        name: of the folder of these rows: tokens or samples.
    """

    folder: Path
    documents: ShardDataset
    dropped: ShardDataset
    quarantined: ShardDataset
    rows: dict[str, ShardDataset]
    name: str

    def datasets(self) -> dict[str, ShardDataset]:
        """Every data set by its name below the folder."""
        apart = {DOCUMENTS: self.documents, DROPPED: self.dropped, QUARANTINED: self.quarantined}
        return {**apart, **{f"{self.name}/{split}": dataset for split, dataset in self.rows.items()}}


def open_corpus(folder: Path) -> Corpus:
    """The data sets of an ingestion.

    Args:
        folder: of its result, or of one of its data sets.

    Raises:
        DataError: there is none, or a file is missing or of another size.
    """
    root = next((place for place in (folder, *folder.parents[:2]) if (place / DOCUMENTS / MANIFEST).exists()), None)
    name = next((name for name in _FOLDERS if root and (root / name / SPLITS[0] / MANIFEST).exists()), None)
    if root is None or name is None:
        raise DataError(
            f"{folder} is no data set: {'it holds no finished ingestion' if folder.exists() else 'it is not there'}",
            allowed="the folder of an ingest result, with documents/, dropped/ and tokens/ or samples/",
            fix="`foundation runs` lists the results of the data folder",
        )
    documents, dropped, quarantined = (
        ShardDataset(root / part, verify=False) for part in (DOCUMENTS, DROPPED, QUARANTINED)
    )
    rows = {str(split): ShardDataset(root / name / split, verify=False) for split in SPLITS}
    return Corpus(root, documents, dropped, quarantined, rows, name)


def columns(dataset: ShardDataset, wanted: Iterable[str]) -> Iterator[pa.Table]:
    """Those of the columns that are there, shard by shard."""
    for table in dataset.tables():
        yield table.select([name for name in wanted if name in table.schema.names])


def whole(dataset: ShardDataset, schema: pa.Schema) -> pa.Table:
    """Some columns of all shards, as nulls where a data set lacks one. For columns without texts."""
    tables = [table.cast(_of(schema, table)) for table in columns(dataset, schema.names)]
    return pa.concat_tables([schema.empty_table(), *tables], promote_options="default")


def _of(schema: pa.Schema, table: pa.Table) -> pa.Schema:
    return pa.schema([schema.field(name) for name in table.schema.names])


def texts_of(corpus: Corpus, documents: Iterable[str], characters: int) -> dict[str, str]:
    """How the texts of some documents begin, by id.

    The text of a dropped document is found as long as the units of work are there: until nobody uses them, and prunes.
    """
    missing = set(documents)
    found = dict[str, str]()
    for table in _tables_with_texts(corpus):
        if not missing:
            break
        if "text" not in table.schema.names:
            continue
        hits = pc.is_in(table["document"], pa.array(sorted(missing), pa.string()))
        if pc.any(hits).as_py():
            here = table.select(["document", "text"]).filter(hits)
            beginnings = pc.utf8_slice_codeunits(here["text"], 0, characters)
            found |= zip(here["document"].to_pylist(), beginnings.to_pylist(), strict=True)
            missing -= found.keys()
    return found


def _tables_with_texts(corpus: Corpus) -> Iterator[pa.Table]:
    yield from corpus.documents.tables()
    known = corpus.folder / UNITS_FILE
    for name in read_json(known)["read"] if known.exists() else ():
        for root in (corpus.folder, *corpus.folder.parents[1:2]):  # of an ingestion that is alone, or of a data folder
            if (path := root / UNITS_FOLDER / name / KEPT_FILE).exists():
                yield read_arrow(path)
