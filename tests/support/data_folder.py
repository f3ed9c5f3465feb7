"""A data folder in which one ingestion of little texts follows the other."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundation_core.alone import alone
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.store import StageResult

_SYLLABLES = ("ka", "mo", "ri", "te", "su", "na", "lo", "ve", "pi", "ne")


class DataFolder:
    """Its root, and the folders of its ingestions by their numbers."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0

    @property
    def last(self) -> Path:
        """The folder of the last ingestion."""
        return self.root / "ingest" / str(self.count)

    def context(self) -> Context:
        """The context of the next ingestion."""
        self.count += 1
        return replace(alone(self.last), shared=self.root)

    def ingest(self, spec: IngestSpec) -> StageResult:
        """Another ingestion."""
        return ingest(spec, {}, self.context())


def little_text(seed: object) -> str:
    """Some 150 bytes of words, others for each seed."""
    draw = random.Random(str(seed))
    words = ("".join(draw.choices(_SYLLABLES, k=draw.randint(1, 3))) for _ in range(draw.randint(25, 50)))
    return " ".join(words) + "\n"


def little_texts(count: int = 60) -> dict[str, str]:
    """Texts by the names of their files."""
    return {f"{number:03d}.txt": little_text(number) for number in range(count)}


def write_texts(folder: Path, texts: Mapping[str, str]) -> Path:
    """Let a folder hold these files and no other; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def folder_source(path: Path, **fields: Any) -> dict[str, Any]:
    """Such a folder as a source; keywords are its fields."""
    return {"kind": "folder", "path": str(path), "pattern": "*.txt", **fields}


def little_ingestion(source: Path | Mapping[str, Any], **fields: Any) -> IngestSpec:
    """The spec that reads such a folder, or another source, in many units and shards; keywords are its fields."""
    usual: dict[str, Any] = {
        "source": folder_source(source) if isinstance(source, Path) else source,
        "split": {"validation_fraction": 0.2, "test_fraction": 0.2},
        "tokenizer": {"vocabulary": 262},
        "shard_tokens": 1024,
        "unit_bytes": 1024,
    }
    return IngestSpec.model_validate({**usual, **fields})


def units(result: StageResult) -> dict[str, tuple[int, int]]:
    """For each phase of an ingestion how many units were there already, and how many were done."""
    return {phase: (counts["reused"], counts["done"]) for phase, counts in result.summary["units"].items()}
