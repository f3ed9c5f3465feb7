"""The loader on a data set of a billion tokens: `python -m benchmarks.loader`.

Writes the data set into a temporary folder (4 GB, removed in the end): documents of log-normal lengths, in two groups.
Then, in processes of their own, of one thread each: what a start takes beyond imports; and how many tokens a second two
ranks get of a mixture of both groups in a keyed order, with segments and positions, once every shard was touched. The
ranks' batches are int32, as they leave the loader. Machine code and torch take turns, so that what disturbs the machine
disturbs both. Prints each figure, its bar, and where the time goes; and what numba costs the first batch.

Where others use the cores, a second holds less than a second of work: the rate by the processors' own time is nearer to
what there would be without them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import torch

from benchmarks.loader.ranks import RANKS, Measured, run_rank
from cluster.settings import usable_cpus
from foundation_core.data.loading.loader import Loader
from foundation_core.data.loading.mixture import Mixture, Phase
from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import MANIFEST, ShardDataset, ShardWriter
from foundation_core.data.units.work import TOKENS
from foundation_core.files import read_json, sha256_json, write_json
from foundation_core.specs.loading import Packing

BAR_START_SECONDS, BAR_START_MB, BAR_TOKENS_PER_SECOND = 1.0, 60.0, 300e6
VOCABULARY = 50_000


def main() -> int:
    """Measure and print; 1 if a bar is missed."""
    arguments = _arguments()
    if arguments.start:
        _start(Path(arguments.start), arguments.packing, arguments.context_tokens)
        return 0
    print(f"machine: {usable_cpus()} CPUs; {RANKS} ranks of one thread; rows of {arguments.context_tokens} tokens")
    with tempfile.TemporaryDirectory(prefix="bench-loader-") as name:
        tokens = _write(Path(name), arguments.tokens, arguments.shard_tokens)
        print(f"data set: {tokens:,} tokens")
        met = []
        for packing in ("cut", "best_fit"):
            command = [sys.executable, "-m", "benchmarks.loader", "--start", name, "--packing", packing]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, processor_seconds, megabytes, code_seconds, code_megabytes = json.loads(run.stdout)
            good = seconds <= BAR_START_SECONDS and megabytes <= BAR_START_MB
            print(
                f"start, {packing}: {seconds:.2f} s ({processor_seconds:.2f} s of the processor), {megabytes:.0f} MB"
                f" (bars {BAR_START_SECONDS:g} s, {BAR_START_MB:g} MB) {_verdict(good)};"
                f" numba and the first batch: {code_seconds:.2f} s, {code_megabytes:.0f} MB"
            )
            met.append(good)
        for packing in ("cut", "best_fit"):
            met.append(_report_speed(Path(name), packing, arguments))
    return int(not all(met))


def _start(folder: Path, packing: Packing, context_tokens: int) -> None:
    """Print the seconds and megabytes that it takes to be ready for the first step, and those of the first batch."""
    torch.set_num_threads(1)
    before, begin, processor = _resident_mb(), time.perf_counter(), time.process_time()
    windows = Windows(ShardDataset(folder, verify=False), context_tokens, packing)
    Loader(windows, Mixture({"all": len(windows)}, [Phase(0, (1,))], 0), 1024, 512)
    started, ready, processor = _resident_mb(), time.perf_counter(), time.process_time() - processor
    windows.gather(torch.tensor([0]))
    first = time.perf_counter() - ready, _resident_mb() - started
    print(json.dumps([ready - begin, processor, started - before, *first]))


def _report_speed(folder: Path, packing: Packing, arguments: argparse.Namespace) -> bool:
    context = get_context("spawn")
    barrier, results = context.Barrier(RANKS), context.Queue()
    ranks = [
        context.Process(target=run_rank, args=(rank, barrier, results, folder, packing, arguments))
        for rank in range(RANKS)
    ]
    for process in ranks:
        process.start()
    found = [results.get() for _ in ranks]
    for process in ranks:
        process.join()
    rates = {way: _rates([rank[way] for rank in found]) for way in found[0]}
    good = next(iter(rates.values()))[0] >= BAR_TOKENS_PER_SECOND
    for way, (by_clock, by_processor) in rates.items():
        verdict = f" (bar {BAR_TOKENS_PER_SECOND / 1e6:.0f} M) {_verdict(good)}" if way == "compiled" else ""
        first = found[0][way].first_seconds
        print(
            f"{packing}, {way}: {by_clock / 1e6:.0f} M tokens/s{verdict}; {by_processor / 1e6:.0f} M a second of the"
            f" processors; first step {first:.2f} s"
        )
        print("  " + ", ".join(f"{name} {share:.0%}" for name, share in found[0][way].shares.items()))
    return good


def _rates(ranks: list[Measured]) -> tuple[float, float]:
    """Tokens a second of all ranks, by the clock and by the processors' own time."""
    by_clock = sum(rank.tokens / rank.seconds for rank in ranks)
    return by_clock, sum(rank.tokens / rank.processor_seconds for rank in ranks)


def _write(folder: Path, tokens: int, shard_tokens: int) -> int:
    """A data set of about so many tokens; its shards are copies of one, so that it is there in seconds."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.empty(shard_tokens // 100).log_normal_(6.2, 1.0, generator=draw).long().clamp(2, 100_000)
    lengths = lengths[lengths.cumsum(0) <= shard_tokens]
    drawn = torch.randint(0, VOCABULARY, (int(lengths.sum()),), dtype=torch.int32, generator=draw)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    documents = pa.LargeListArray.from_arrays(pa.array(offsets.tolist(), pa.int64()), pa.array(drawn.numpy()))
    names = [f"bench/{number:06d}" for number in range(len(lengths))]
    groups = ["code" if number < len(names) // 3 else "prose" for number in range(len(names))]
    with ShardWriter(folder, TOKENS, source={}, shard_size=2 * shard_tokens) as writer:
        writer.write(pa.table({"document": names, "group": groups, "tokens": documents}, schema=TOKENS))
    manifest = read_json(folder / MANIFEST)
    (first,) = manifest["shards"]
    shards = [{**first, "file": f"shard-{number:05d}.arrow"} for number in range(max(1, tokens // first["tokens"]))]
    for shard in shards[1:]:
        shutil.copyfile(folder / first["file"], folder / shard["file"])
    for name in ("rows", "tokens", "bytes"):
        manifest[name] = first[name] * len(shards)
    hashes = [[shard["rows"], shard["sha256"]] for shard in shards]
    content = sha256_json([manifest["schema"], manifest["tokenizer"], hashes])
    write_json(folder / MANIFEST, {**manifest, "content": content, "shards": shards})
    return int(manifest["tokens"])


def _resident_mb() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1e3


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__)
    parser.add_argument("--tokens", type=int, default=1_000_000_000)
    parser.add_argument("--shard-tokens", type=int, default=16_000_000)
    parser.add_argument("--context-tokens", type=int, default=2048)
    parser.add_argument("--batch-rows", type=int, default=1024, help="rows of a step, of both ranks")
    parser.add_argument("--steps", type=int, default=30, help="steps that are timed")
    parser.add_argument("--packing", default="cut", help=argparse.SUPPRESS)
    parser.add_argument("--start", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
