"""Shards as units of work: one that an earlier result has too is given a second name, and neither read nor written.

    what decides the rows --hash--> units/shards/3f/9a02../shard.arrow --link--> tokens/train/shard-00003.arrow

Results keep their shards when the units are pruned, for a file lives as long as one of its names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from foundation_core.data.shards.dataset import arrow_bytes, encoded_shard
from foundation_core.data.units.work import Unit
from foundation_core.files import link_file

PHASE = "shards"
SHARD_FILE = "shard.arrow"


@dataclass
class SharedShards:
    """Makes shards that any ingestion of a data folder finds again.

    Args:
        root: of all units.
        made_by: what else decides the bytes of the rows: code, libraries, tokenizer.
        done: how many were there already, and how many were made.
    """

    root: Path
    made_by: Any
    done: dict[str, int] = field(default_factory=lambda: {"reused": 0, "done": 0})

    def __call__(self, path: Path, schema: pa.Schema, known: pa.Table, rows: Callable[[], pa.Table]) -> dict[str, Any]:
        """What the manifest says of the shard, whose file is at the path then."""
        decides = [self.made_by, str(schema), hashlib.sha256(arrow_bytes(known)).hexdigest()]
        unit = Unit.of(self.root, PHASE, decides)
        there = unit.claimed()
        if not there:
            data, facts = encoded_shard(rows())
            unit.commit({SHARD_FILE: data}, **facts)
        self.done["reused" if there else "done"] += 1
        link_file(unit.folder / SHARD_FILE, path)
        return unit.facts()
