"""What an ingestion holds at a time, on corpora of two sizes: `python -m benchmarks.ingest.memory CORPUS.jsonl`.

    paragraphs of CORPUS --drawn by a seed--> 100 MB, 1 GB --ingest in a process tree of its own--> PSS of the tree

CORPUS holds rows of id and text (`benchmarks.ingest.corpus` writes real ones). A document of the larger corpora has as
many paragraphs as one of CORPUS, each drawn from all of them: few are near copies, and they pack as the real ones do.
A word that nothing else has stands behind each 40th paragraph, as the words of a real corpus never end.

`--coefficients` measures what the preflight reckons with (`foundation_core/stages/ingest_needs.py`) instead: what the
first process and each worker hold while units of two sizes are read. A worker's bytes are a line through both: its
slope is the bytes for each byte of a unit, and where it begins is what a worker holds before it reads.

A process's proportional set size (PSS) counts a page that n processes share as 1/n of a page; pages of files that are
mapped count too. It is summed over all processes of the run every 50 ms, so a shorter peak may be missed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.ingest.ours import UNIT_BYTES, spec_of
from cluster.pools import ProcessPool
from cluster.settings import usable_cpus
from foundation_core.alone import alone
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.events import read_events
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.stages.ingest_needs import FIRST_BYTES, UNIT_FACTOR, WORKER_BYTES

BAR_RATIO, BAR_BYTES = 1.2, 1.5e9
PERIOD_SECONDS = 0.05
UNITS_BYTES = 1_000_000, 16_000_000
"""The two sizes of units whose memory makes the line."""
_FILE_BYTES = 64_000_000
_NEW_WORD_EVERY = 40
_LETTERS = "etaoinshrdlu"


class Sample(NamedTuple):
    """Bytes that a process tree holds at a time; of them, those of its first process, and those of mapped files."""

    time: float
    bytes: int
    first: int
    mapped: int


class Peaks(NamedTuple):
    """What a run held.

    Args:
        by_phase: the largest sample of each phase, in their order.
    """

    megabytes: float
    documents: int
    kept: int
    seconds: float
    by_phase: dict[str, Sample]

    @property
    def bytes(self) -> int:
        """The largest of all samples."""
        return max(sample.bytes for sample in self.by_phase.values())


def main() -> int:
    """Measure and print; 1 if a bar is missed."""
    arguments = _arguments()
    if arguments.into:
        spec = spec_of(arguments.corpus, arguments.workers, arguments.vocabulary, arguments.unit_bytes)
        ingest(spec, {}, _context(arguments.into))
        return 0
    if arguments.coefficients:
        _print_coefficients(arguments)
        return 0
    print(f"machine: {usable_cpus()} CPUs; {arguments.workers} workers; a sample every {1000 * PERIOD_SECONDS:g} ms")
    found = list[Peaks]()
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory(prefix="bench-memory-", dir=arguments.scratch) as name:
            recombine(arguments.corpus, Path(name) / "parts", megabytes)
            found.append(_measured(Path(name), megabytes, arguments))
        _print(found[-1])
    ratio = found[-1].bytes / found[0].bytes
    met = [ratio <= BAR_RATIO, found[-1].bytes <= BAR_BYTES]
    print(f"ratio of the peaks: {ratio:.2f} (bar {BAR_RATIO:g}) {'met' if met[0] else 'MISSED'}")
    peak = f"{found[-1].bytes / 1e6:,.0f} MB (bar {BAR_BYTES / 1e6:,.0f})"
    print(f"peak of the largest: {peak} {'met' if met[1] else 'MISSED'}")
    return int(not all(met))


def recombine(corpus: Path, folder: Path, megabytes: float, seed: int = 0) -> None:
    """JSONL files of documents that are made of the paragraphs of a corpus."""
    with corpus.open() as lines:
        texts = [json.loads(line)["text"].split("\n\n") for line in lines]
    paragraphs, lengths = [paragraph for text in texts for paragraph in text], [len(text) for text in texts]
    draw, size, number = random.Random(seed), 0, 0
    folder.mkdir(parents=True)
    while size < megabytes * 1e6:
        with (folder / f"{number:05d}.jsonl").open("w") as sink:
            written = 0
            while written < _FILE_BYTES and size < megabytes * 1e6:
                chosen = draw.choices(paragraphs, k=draw.choice(lengths))
                for place in range(0, len(chosen), _NEW_WORD_EVERY):
                    chosen[place] += " " + "".join(draw.choices(_LETTERS, k=8))
                line = json.dumps({"text": "\n\n".join(chosen)}, ensure_ascii=False) + "\n"
                size, written = size + len(line.encode()), written + len(line.encode())
                sink.write(line)
        number += 1


def process_tree(pid: int) -> Iterator[int]:
    """A process and all below it, as far as they still are."""
    yield pid
    try:
        children = [
            int(child)
            for thread in Path(f"/proc/{pid}/task").iterdir()
            for child in (thread / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield from process_tree(child)


def pss(pid: int) -> tuple[int, int]:
    """The proportional set size of a process, and the part of it that is of files; bytes. 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    sizes = {name: int(size.split()[0]) * 1024 for name, size in (line.split(":") for line in lines)}
    return sizes.get("Pss", 0), sizes.get("Pss_File", 0)


def sampled(run: subprocess.Popen[bytes]) -> list[Sample]:
    """What the tree of a process holds until it ends."""
    samples = []
    while run.poll() is None:
        held = [pss(pid) for pid in process_tree(run.pid)]
        samples.append(Sample(time.time(), sum(one[0] for one in held), held[0][0], sum(one[1] for one in held)))
        time.sleep(PERIOD_SECONDS)
    return samples


class Coefficients(NamedTuple):
    """What `memory_bytes` of the preflight adds up."""

    first_bytes: float
    worker_bytes: float
    unit_factor: float


def coefficients(peaks: Sequence[Sample], units_bytes: Sequence[int], workers: int) -> Coefficients:
    """The line through what a worker holds at the peak of reading, for two sizes of units."""
    small, large = ((peak.bytes - peak.first) / workers for peak in peaks)
    factor = (large - small) / (units_bytes[1] - units_bytes[0])
    return Coefficients(max(peak.first for peak in peaks), small - factor * units_bytes[0], factor)


def _print_coefficients(arguments: argparse.Namespace) -> None:
    peaks, megabytes = list[Sample](), max(arguments.megabytes[0], 3 * arguments.workers * UNITS_BYTES[1] / 1e6)
    for unit_bytes in UNITS_BYTES:
        with tempfile.TemporaryDirectory(prefix="bench-memory-", dir=arguments.scratch) as name:
            recombine(arguments.corpus, Path(name) / "parts", megabytes)
            peaks.append(_measured(Path(name), megabytes, arguments, unit_bytes).by_phase["read"])
        held = f"{peaks[-1].bytes / 1e6:,.0f} MB, {peaks[-1].first / 1e6:,.0f} of them in the first process"
        print(f"units of {unit_bytes / 1e6:g} MB: {held}", flush=True)
    found = coefficients(peaks, UNITS_BYTES, arguments.workers)
    print(f"first process {found.first_bytes / 1e6:,.0f} MB (the preflight: {FIRST_BYTES / 1e6:,.0f})")
    print(f"a worker before it reads {found.worker_bytes / 1e6:,.0f} MB (the preflight: {WORKER_BYTES / 1e6:,.0f})")
    print(f"bytes for each byte of a unit {found.unit_factor:.1f} (the preflight: {UNIT_FACTOR})")


def _measured(folder: Path, megabytes: float, arguments: argparse.Namespace, unit_bytes: int = UNIT_BYTES) -> Peaks:
    out, start = folder / "out", time.time()
    options = ["--workers", str(arguments.workers), "--vocabulary", str(arguments.vocabulary)]
    options += ["--unit-bytes", str(unit_bytes)]
    command = [sys.executable, "-m", "benchmarks.ingest.memory", str(folder / "parts"), "--into", str(out), *options]
    with subprocess.Popen(command) as run:
        samples = sampled(run)
    if run.returncode:
        sys.exit(f"the ingestion failed with exit status {run.returncode}")
    marks = [(start, "list"), *((event["time"], event["name"]) for event in _phases(out))]
    by_phase = dict[str, Sample]()
    for sample in samples:
        _, name = marks[bisect_right(marks, sample.time, key=lambda mark: mark[0]) - 1]
        by_phase[name] = max(by_phase.get(name, sample), sample, key=lambda one: one.bytes)
    rows = {name: ShardDataset(out / name, verify=False).rows for name in ("documents", "dropped", "quarantined")}
    return Peaks(megabytes, sum(rows.values()), rows["documents"], time.time() - start, by_phase)


def _phases(out: Path) -> Iterator[dict[str, float | str]]:
    return (event for _, event in read_events(out) if event["kind"] == "phase")


def _context(out: Path) -> Context:
    return replace(alone(out), pool=ProcessPool())


def _print(peaks: Peaks) -> None:
    size = f"{peaks.megabytes:,.0f} MB, {peaks.documents:,} documents ({peaks.kept / peaks.documents:.0%} kept)"
    print(f"{size}: peak {peaks.bytes / 1e6:,.0f} MB, {peaks.seconds:.0f} s")
    for name, sample in peaks.by_phase.items():
        held = f"{sample.bytes / 1e6:7,.0f} MB, {sample.first / 1e6:5,.0f} of them in the first process"
        print(f"  {name:>16} {held}, {sample.mapped / 1e6:5,.0f} of mapped files")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest.memory", description=__doc__)
    parser.add_argument("corpus", type=Path, metavar="CORPUS.jsonl")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[100.0, 1000.0], help="of the corpora, in order")
    parser.add_argument("--vocabulary", type=int, default=8192, help="entries of the tokenizer")
    parser.add_argument("--workers", type=int, default=usable_cpus(), help="processes that read and encode")
    parser.add_argument("--scratch", type=Path, help="folder for corpora and results; about five times the largest")
    parser.add_argument("--coefficients", action="store_true", help="what the preflight reckons with, in place of bars")
    parser.add_argument("--unit-bytes", type=int, default=UNIT_BYTES, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)  # the run that is measured
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
