"""What a training found out about its documents, in a file beside its checkpoints: nobody has to find it out again.

    step 812 is not finite -> documents -> quarantine.json (committed) -> from the newest checkpoint before step 37,
                                                                         the first one that read any of them

Entries are only added, and a checkpoint says how many its training knew. One that knew fewer is of use if it is from
before the first step that read a document of the others: it cannot tell that they were there. One that knew more is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foundation_core.data.loading.order import SampleOrder
from foundation_core.data.loading.quarantine import NamedRows, first_sample
from foundation_core.errors import CheckpointError
from foundation_core.files import read_json, write_json

LEDGER_FILE = "quarantine.json"
MEMORY_FILE = "memory.json"


@dataclass(frozen=True)
class Entry:
    """Documents that were found at once.

    Args:
        failure: class of the fault: persistent_nan or loss_spike.
        step: that could not be done, from 0.
        rewind_to: steps that a checkpoint may have at the most, to know nothing of the documents.
    """

    failure: str
    step: int
    rewind_to: int
    documents: tuple[str, ...]


class Ledger:
    """The entries of one training, and the making of new ones.

    Args:
        folder: that holds the checkpoints.
        rows: of the training, in their order.
        batch_rows: of a step, over all ranks.
    """

    def __init__(self, folder: Path, rows: NamedRows, order: SampleOrder, batch_rows: int) -> None:
        self._path, self._memory = folder / LEDGER_FILE, folder / MEMORY_FILE
        self._rows, self._order, self._batch_rows = rows, order, batch_rows
        found = read_json(self._path)["entries"] if self._path.exists() else []
        self.entries = [Entry(**{**entry, "documents": tuple(entry["documents"])}) for entry in found]

    @property
    def documents(self) -> tuple[str, ...]:
        """All documents that were found so far, sorted."""
        return tuple(sorted({name for entry in self.entries for name in entry.documents}))

    def samples(self, step: int) -> range:
        """The numbers of a step's samples."""
        return range(step * self._batch_rows, (step + 1) * self._batch_rows)

    def documents_of(self, sample: int) -> list[str]:
        """The document of each segment of a sample's row."""
        return self._rows.documents_of(self._order.take(sample, 1))[0]

    def entry(self, failure: str, step: int, documents: Sequence[str], best_step: int) -> Entry:
        """The entry for documents that were found in a step; not written yet.

        Args:
            best_step: steps behind the best weights that are kept. If these had read the documents, they are of no use,
                and those before them are overwritten: the training has to begin at its start.
        """
        first = first_sample(self._order, self._rows.rows_of(documents), (step + 1) * self._batch_rows)
        assert first is not None, "the step that they were found in read them"
        first_step = first // self._batch_rows
        return Entry(failure, step, first_step if best_step <= first_step else 0, tuple(sorted(documents)))

    def commit(self, entry: Entry) -> None:
        """Write one more entry; one rank does."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, {"version": 1, "entries": [asdict(known) for known in [*self.entries, entry]]})

    def allows(self, step: int, state: Mapping[str, Any]) -> bool:
        """Whether a checkpoint is like one of a training that knew all entries from its start.

        Raises:
            CheckpointError: it knew entries that are lost: their documents would be read again.
        """
        known = int(state.get("faults", {}).get("quarantines", 0))
        if known > len(self.entries):
            raise CheckpointError(
                f"the checkpoint of step {step} knew {known} entries of {self._path}, which has {len(self.entries)}",
                fix=f"bring {LEDGER_FILE} back, or remove the checkpoints to train anew",
            )
        return all(step <= entry.rewind_to for entry in self.entries[known:])

    def least_micro_batch(self) -> int:
        """The micro-batches that memory was found to have room for, in rows; 0 if it was never full."""
        return int(read_json(self._memory)["micro_batch_rows"]) if self._memory.exists() else 0

    def keep_micro_batch(self, rows: int) -> None:
        """Remember for the next start that memory has room for so many rows and no more; any rank may say so."""
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._memory, {"version": 1, "micro_batch_rows": rows})
