"""A training of 1,024 ranks on 10^12 tokens, as far as its order goes: `python -m benchmarks.simulation`.

    shared shard files --made-up manifest--> 100,000 entries --each rank anew--> data set, windows, order, first batch

The data set is of the size that such a corpus has: a manifest entry and a name for every shard. The names are links
to a few real shards, so that the disk holds hardly more than the manifest. Each rank then starts as a training's does,
from the manifest to its first batch, one after the other in this process and with nothing kept of the last one; its
time by the clock and of the processor is held against 1 s each (`--busy`: that of the processor alone). The same by a
mixture of all rows, and by best fit in a smaller corpus, since that reads the lengths of all documents. Machine code is
loaded once before, and said apart. Together the batches must be the global one, without a row twice; a later step must
be the same whether it is reached at once or by the steps before it; another number of ranks must read the same rows in
the same order; every rank must make as many forward passes. What the ranks ask of a cluster, vote on and save is looked
at too (`benchmarks.simulated_cluster`). Ends with 1 if any of that is not so, or a start takes longer.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from benchmarks import simulated_cluster
from foundation_core.data.loading.loader import Loader
from foundation_core.data.loading.mixture import Mixture, Phase
from foundation_core.data.loading.order import Order, SampleOrder
from foundation_core.data.loading.packing import Windows
from foundation_core.data.loading.pieces import machine_code
from foundation_core.data.shards.dataset import MANIFEST, ShardDataset, ShardWriter
from foundation_core.data.units.work import TOKENS
from foundation_core.files import read_json, sha256_json, write_json
from foundation_core.specs.loading import Packing

BAR_SECONDS = 1.0
REAL_SHARDS = 4
SEED = 0


class Corpus(NamedTuple):
    """How much there is.

    Args:
        tokens: of all shards.
        shard_tokens: of each.
    """

    tokens: int = 10**12
    shard_tokens: int = 10**7


class Way(NamedTuple):
    """How rows are made and ordered.

    Args:
        mixed: whether the rows come as a mixture of three parts, 5 : 3 : 2.
    """

    packing: Packing = "cut"
    mixed: bool = False

    def order(self, rows: int) -> SampleOrder:
        """Of so many rows."""
        if not self.mixed:
            return Order(rows, SEED)
        sizes = {"web": rows // 2, "books": rows // 3, "code": rows - rows // 2 - rows // 3}
        return Mixture(sizes, [Phase(0, (5, 3, 2))], SEED)


PLAIN, MIXED, BEST_FIT = Way(), Way(mixed=True), Way("best_fit")


class Start(NamedTuple):
    """What a rank's start took.

    Args:
        seconds: of the processor, from the manifest to the first batch.
        by_clock: the same on the wall.
        samples: numbers of the samples of its first batch.
        digest: of their tokens.
    """

    seconds: float
    by_clock: float
    samples: Tensor
    digest: str


def make(folder: Path, corpus: Corpus) -> None:
    """A finished data set of so many tokens in a folder, of which few are on the disk."""
    real = folder / "real"
    draw = torch.Generator().manual_seed(SEED)
    with ShardWriter(real, TOKENS, source={}, shard_size=corpus.shard_tokens) as writer:
        length = max(2, corpus.shard_tokens // 1000)
        for shard in range(REAL_SHARDS):
            count = corpus.shard_tokens // length
            tokens = torch.randint(0, 50_000, (count * length,), dtype=torch.int32, generator=draw)
            offsets = pa.array(range(0, count * length + 1, length), pa.int64())
            rows = pa.LargeListArray.from_arrays(offsets, pa.array(tokens.numpy()))
            names = [f"{shard}/{number:06d}" for number in range(count)]
            writer.write(pa.table({"document": names, "group": [""] * count, "tokens": rows}, schema=TOKENS))
    manifest = read_json(real / MANIFEST)
    originals = manifest["shards"]
    mean = sum(shard["tokens"] for shard in originals) // len(originals)
    entries = []
    for number in range(corpus.tokens // mean):
        original, name = originals[number % len(originals)], f"shard-{number:05d}.arrow"
        (folder / name).symlink_to(real / original["file"])
        entries.append({**original, "file": name})
    for field in ("rows", "tokens", "bytes"):
        manifest[field] = sum(entry[field] for entry in entries)
    hashes = [[entry["rows"], entry["sha256"]] for entry in entries]
    content = sha256_json([manifest["schema"], manifest["tokenizer"], hashes])
    write_json(folder / MANIFEST, {**manifest, "content": content, "shards": entries})


def loader_of(folder: Path, rank: int, world: int, arguments: argparse.Namespace, way: Way = PLAIN) -> Loader:
    """The loader of a rank, from the manifest on: what a training's rank makes (`stages.pretrain`)."""
    local = arguments.ranks_of_machine
    windows = Windows(ShardDataset(folder, share=(rank % local, local)), arguments.context_tokens, way.packing)
    return Loader(windows, way.order(len(windows)), arguments.batch_rows, arguments.batch_rows, rank, world)


def start(folder: Path, rank: int, world: int, step: int, arguments: argparse.Namespace, way: Way = PLAIN) -> Start:
    """A rank's start at a step."""
    clock, processor = time.perf_counter(), time.process_time()
    batches = loader_of(folder, rank, world, arguments, way).micro_batches(step)
    seconds, by_clock = time.process_time() - processor, time.perf_counter() - clock
    samples = torch.cat([batch["sample"] for batch in batches])
    there = samples >= 0
    tokens = torch.cat([batch["tokens"] for batch in batches])[there]
    return Start(seconds, by_clock, samples[there], hashlib.sha256(tokens.numpy().tobytes()).hexdigest())


def whole(starts: list[Start], step: int, batch_rows: int) -> bool:
    """Whether the ranks' samples are the global batch, each once and in order."""
    expected = torch.arange(step * batch_rows, (step + 1) * batch_rows)
    return torch.equal(torch.cat([start.samples for start in starts]), expected)


def rows_of(
    folder: Path, worlds: tuple[int, int], step: int, arguments: argparse.Namespace, way: Way = PLAIN
) -> tuple[Tensor, Tensor]:
    """The row numbers of a global batch in the order in which two numbers of ranks read them."""
    windows = Windows(ShardDataset(folder), arguments.context_tokens, way.packing)
    order = way.order(len(windows))

    def read(world: int) -> Iterator[Tensor]:
        for rank in range(world):
            asked = _Asked(len(windows))
            loader = Loader(asked, order, arguments.batch_rows, arguments.batch_rows, rank, world)
            loader.micro_batches(step)
            yield asked.indices

    first, second = (torch.cat(list(read(world))) for world in worlds)
    return first, second


class _Asked:
    """Rows that are only asked for."""

    def __init__(self, count: int) -> None:
        self.count, self.indices = count, torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return self.count

    def gather(self, indices: Tensor) -> dict[str, Tensor]:
        """Remember the numbers."""
        self.indices = indices
        return {"tokens": indices[:, None]}


def main() -> int:
    """Simulate and print; 1 if something is not as it must be."""
    arguments = _arguments()
    torch.set_num_threads(1)
    if arguments.memory_of is not None:
        _report_memory(Path(arguments.memory_of), arguments)
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-simulation-") as name:
        folder = Path(name)
        make(folder, Corpus(arguments.tokens, arguments.shard_tokens))
        return int(not all(list(_checks(folder, arguments))))


def _checks(folder: Path, arguments: argparse.Namespace) -> Iterator[bool]:
    world, batch_rows = arguments.ranks, arguments.batch_rows
    dataset = ShardDataset(folder)
    rows, size = len(Windows(dataset, arguments.context_tokens)), (folder / MANIFEST).stat().st_size
    print(
        f"data set: {dataset.tokens:,} tokens, {rows:,} rows, {dataset.shards:,} shards, manifest {size / 1e6:.0f} MB"
    )
    del dataset
    before = time.process_time()
    machine_code()
    print(f"machine code of the loader: {time.process_time() - before:.2f} s of the processor, once a process")
    starts = [start(folder, rank, world, 0, arguments) for rank in range(world)]
    yield _in_time(f"start and first batch of {world} ranks", starts, arguments.busy)
    yield _said("the first batches together are the global batch, no row twice", whole(starts, 0, batch_rows))

    step = rows // batch_rows - 2
    some = range(0, world, max(1, world // 16))
    direct = {rank: start(folder, rank, world, step, arguments).digest for rank in some}
    followed = {rank: _followed(folder, rank, step, arguments) for rank in some}
    yield _said(
        f"step {step:,} reached at once is step {step:,} reached by steps ({len(some)} ranks)", direct == followed
    )
    first, second = rows_of(folder, (world, arguments.other_ranks), step, arguments)
    same = torch.equal(first, second)
    yield _said(
        f"{world} and {arguments.other_ranks} ranks read the same rows in the same order at step {step:,}", same
    )
    again = start(folder, world - 1, world, 0, arguments)
    yield _said("a rank that starts again reads what it read", again.digest == starts[-1].digest)

    plans = {share(rank, world, batch_rows) for rank in range(world)}
    yield _said(f"launch: every rank makes as many forward passes ({sorted(plans)})", len(plans) == 1)
    yield from _other_ways(folder, arguments)
    for what, holds in simulated_cluster.checks(arguments.other_ranks):
        yield _said(f"cluster: {what}", holds)
    command = [sys.executable, "-m", "benchmarks.simulation", "--memory-of", str(folder), *sys.argv[1:]]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


def _other_ways(folder: Path, arguments: argparse.Namespace) -> Iterator[bool]:
    """A mixture of all rows, and best fit in a smaller corpus: the same questions, at the first step."""
    world = arguments.ranks
    with tempfile.TemporaryDirectory(prefix="bench-simulation-") as name:
        make(Path(name), Corpus(arguments.packed_shards * arguments.shard_tokens, arguments.shard_tokens))
        for what, place, way in (
            ("a mixture", folder, MIXED),
            (f"best fit, {arguments.packed_shards} shards", Path(name), BEST_FIT),
        ):
            starts = [start(place, rank, world, 0, arguments, way) for rank in range(world)]
            yield _in_time(f"{what}: start and first batch of {world} ranks", starts, arguments.busy)
            one, other = rows_of(place, (world, arguments.other_ranks), 0, arguments, way)
            once = len(one) == len(one.unique()) == arguments.batch_rows
            yield _said(
                f"{what}: the first batches are the global one, no row twice", once and whole(starts, 0, len(one))
            )
            yield _said(f"{what}: {arguments.other_ranks} ranks read the same rows", torch.equal(one, other))


def _in_time(what: str, starts: list[Start], busy: bool) -> bool:
    """Whether the slowest start keeps the bar: by the clock too, unless others are at work on this machine."""
    slowest, by_clock = max(one.seconds for one in starts), max(one.by_clock for one in starts)
    met = in_time(starts, busy)
    print(
        f"{what}: {median(one.seconds for one in starts):.3f} s of the processor, the slowest {slowest:.3f} s; by the"
        f" clock {median(one.by_clock for one in starts):.3f} s, the slowest {by_clock:.3f} s (bar {BAR_SECONDS:g} s"
        f"{' of the processor' if busy else ' of both'}) {'met' if met else 'MISSED'}",
        flush=True,
    )
    return met


def in_time(starts: list[Start], busy: bool) -> bool:
    """Whether every start took no longer than the bar, of the processor and, unless others work here, by the clock."""
    return all(max(one.seconds, 0.0 if busy else one.by_clock) <= BAR_SECONDS for one in starts)


def share(rank: int, world: int, batch_rows: int) -> int:
    """Rows of the forward passes of a rank, padding included."""
    asked = _Asked(batch_rows)
    loader = Loader(asked, Order(batch_rows, SEED), batch_rows, batch_rows, rank, world)
    return sum(len(batch["sample"]) for batch in loader.micro_batches(0))


def _followed(folder: Path, rank: int, step: int, arguments: argparse.Namespace) -> str:
    """The digest of a step's tokens by a loader that made the steps before it."""
    loader = loader_of(folder, rank, arguments.ranks, arguments)
    for before in range(step - 3, step):
        loader.micro_batches(before)
    batches = loader.micro_batches(step)
    there = torch.cat([batch["sample"] for batch in batches]) >= 0
    return hashlib.sha256(torch.cat([batch["tokens"] for batch in batches])[there].numpy().tobytes()).hexdigest()


def _report_memory(folder: Path, arguments: argparse.Namespace) -> None:
    """Print what one rank holds, in a process of its own, and that it can read every shard."""
    before = _resident_mb()
    loader = loader_of(folder, 0, arguments.ranks, arguments)
    loader.micro_batches(0)
    ready = _resident_mb()
    windows = loader.rows
    assert isinstance(windows, Windows)
    windows.dataset._unverified.clear()  # hashing 4 TB is no part of what is looked at
    shards, per_shard = windows.dataset.shards, len(windows) // windows.dataset.shards
    for first in range(0, shards, 1000):
        windows.gather(torch.arange(first, min(shards, first + 1000)) * per_shard)
    files, maps = len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count("\n")
    print(
        f"memory of a rank: {ready - before:.0f} MB at its first batch; when it has read in each of {shards:,} shards,"
        f" {_resident_mb() - before:.0f} MB, {files} files and {maps:,} maps open (limit"
        f" {resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,} and {_max_maps():,})"
    )


def _max_maps() -> int:
    return int(Path("/proc/sys/vm/max_map_count").read_text())


def _resident_mb() -> float:
    """Memory that belongs to this process alone: pages of shards are the system's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1e3


def _said(what: str, holds: bool) -> bool:
    print(f"{what}: {'yes' if holds else 'NO'}", flush=True)
    return holds


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--tokens", type=int, default=Corpus().tokens)
    parser.add_argument("--shard-tokens", type=int, default=Corpus().shard_tokens)
    parser.add_argument("--context-tokens", type=int, default=2048)
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--ranks-of-machine", type=int, default=8, help="which share the sizes of shards among them")
    parser.add_argument("--other-ranks", type=int, default=1000)
    parser.add_argument("--batch-rows", type=int, default=2048, help="rows of a step, of all ranks")
    parser.add_argument("--packed-shards", type=int, default=100, help="of the smaller corpus, for best fit")
    parser.add_argument(
        "--busy", action="store_true", help="others work here: hold the processor's time alone to the bar"
    )
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
