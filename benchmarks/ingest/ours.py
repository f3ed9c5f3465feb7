"""Our side: the ingest stage on local processes, timed by its phases."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cluster.pools import ProcessPool
from foundation_core.alone import alone
from foundation_core.data.copies.near import near_rule
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.events import read_events
from foundation_core.specs import (
    FuzzyDedupSpec,
    GopherSpec,
    IngestSpec,
    QualitySpec,
    RepetitionSpec,
    SourceSpec,
    TokenizerSpec,
)
from foundation_core.stages.ingest import ingest

SIMILARITY = 0.8
"""From which on a text is a near copy; datatrove compares no texts, and its sketch finds half the pairs of 0.68."""


class Result(NamedTuple):
    """What came out.

    Args:
        seconds: of each phase but the tokenizer's training and the data card, which the other side does not make.
        kept: ids of the documents that stay.
        reasons: the rule that dropped each of the others, but for copies.
        work: seconds of all processes together, by what was done.
    """

    seconds: dict[str, float]
    kept: set[str]
    reasons: dict[str, str]
    work: dict[str, float]


def run(folder: Path, workers: int, vocabulary: int) -> Result:
    """Ingest the JSONL files of `folder/parts` into `folder/ours`."""
    names = _ids(folder / "parts")
    spec = spec_of(folder / "parts", workers, vocabulary)
    out = folder / "ours"
    start = time.time()
    ingest(spec, {}, replace(alone(out), pool=ProcessPool()))
    marks = [(event["time"], event["name"]) for _, event in read_events(out) if event["kind"] == "phase"]
    seconds = {"list": marks[0][0] - start}
    for (begin, name), (end, _) in zip(marks, [*marks[1:], (time.time(), "")], strict=True):
        if name not in {"tokenizer", "card"}:
            seconds[name] = end - begin
    dropped = [row for table in ShardDataset(out / "dropped").tables() for row in table.to_pylist()]
    copies = {near_rule(spec.fuzzy_dedup), "copies <= 1"}
    reasons = {names[row["document"]]: row["rule"] for row in dropped if row["rule"] not in copies}
    kept = {names[name] for table in ShardDataset(out / "documents").tables() for name in table["document"].to_pylist()}
    work = {
        name.removeprefix(_WORK): value
        for _, event in read_events(out) if event["kind"] == "metrics"
        for name, value in event["values"].items() if name.startswith(_WORK)
    }  # fmt: skip
    return Result(seconds, kept, reasons, work)


UNIT_BYTES = 4_000_000
_WORK = "ingest/seconds_"


def spec_of(parts: Path, workers: int, vocabulary: int, unit_bytes: int = UNIT_BYTES) -> IngestSpec:
    """Gopher's rules and fuzzy deduplication, on the JSONL files of a folder."""
    return IngestSpec(
        source=SourceSpec(kind="table", path=str(parts)),
        quality=QualitySpec(gopher=GopherSpec(use=True), repetition=RepetitionSpec(use=True)),
        # datatrove's sketch, and its choice
        fuzzy_dedup=FuzzyDedupSpec(use=True, bands=14, band_rows=8, similarity=SIMILARITY, survivor="first"),
        tokenizer=TokenizerSpec(vocabulary=vocabulary),
        unit_bytes=unit_bytes,
        workers=workers,
    )


def _ids(parts: Path) -> dict[str, str]:
    """The corpus's id of each document, by ours."""
    return {
        f"table/{path.name}/{number:09d}": json.loads(line)["id"]
        for path in sorted(parts.glob("*.jsonl"))
        for number, line in enumerate(path.open(), start=1)
    }
