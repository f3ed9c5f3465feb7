"""The ingestion of prose beside datatrove's: `python -m benchmarks.ingest CORPUS.jsonl --rival PYTHON`.

CORPUS holds rows of id and text. PYTHON is an interpreter that has `datatrove[processing]`. Both sides read the same
documents, apply Gopher's rules for prose and against repetition, remove near copies, encode with the same tokenizer
and write, on as many processes. Training the tokenizer is not counted: ours trains it, the rival is given it.

Prints where the time went, the ratio of MB/s and its bar, how many documents both decide alike, and by which rules
they differ; then near copies against an exact comparison of all pairs, and encoding against its library.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.ingest import exact, ours
from cluster.settings import usable_cpus

BAR_SPEED, BAR_ALIKE = 25.0, 0.995
RIVAL = Path(__file__).with_name("rival.py")


class Document(NamedTuple):
    """A row of the corpus."""

    id: str
    text: str


def main() -> int:
    """Measure and print; 1 if a bar is missed."""
    arguments = _arguments()
    documents = _documents(arguments.corpus, arguments.megabytes)
    megabytes = sum(len(document.text.encode()) for document in documents) / 1e6
    print(f"machine: {usable_cpus()} CPUs, Python {platform.python_version()}; {arguments.workers} processes a side")
    print(f"corpus: {len(documents):,} documents, {megabytes:.1f} MB")
    met = []
    with tempfile.TemporaryDirectory(prefix="bench-ingest-") as name:
        folder = Path(name)
        _write(documents, folder / "parts", arguments.workers)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import foundation_core.data.units.ready"], check=True)
        print(f"machine code, not counted: {time.perf_counter() - start:.1f} s; it is made once for each version")
        mine = ours.run(folder, arguments.workers, arguments.vocabulary)
        if arguments.rival:
            tokenizer = str(folder / "ours" / "tokenizer.json")
            sketch = map(str, arguments.rival_sketch)
            command = [arguments.rival, str(RIVAL), str(folder), tokenizer, str(arguments.workers), *sketch]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                sys.exit(f"the rival failed: {run.stderr[-2000:]}")
            theirs = json.loads((folder / "rival.json").read_text())
            met += _compare(mine, theirs, megabytes)
            _explain(mine, theirs, dict(documents))
        else:
            _print_times("ours", mine.seconds, megabytes)
            _print_work(mine)
        met += exact.report([document.text for document in documents[:5000]])
        met += exact.encoding([document.text for document in documents], folder / "ours" / "tokenizer.json")
    return int(not all(met))


def _compare(mine: ours.Result, theirs: dict[str, Any], megabytes: float) -> list[bool]:
    _print_times("ours", mine.seconds, megabytes)
    _print_work(mine)
    _print_times("datatrove", theirs["seconds"], megabytes)
    ratio = sum(theirs["seconds"].values()) / sum(mine.seconds.values())
    print(f"speed: {ratio:.1f} times datatrove's (bar {BAR_SPEED:g}) {_verdict(ratio >= BAR_SPEED)}")
    everyone = set(mine.reasons) | set(theirs["reasons"]) | set(theirs["copies"]) | set(theirs["unique"]) | mine.kept
    rules = sum((name in mine.reasons) == (name in theirs["reasons"]) for name in everyone) / len(everyone)
    unique = set(theirs["unique"])
    alike = sum((name in mine.kept) == (name in unique) for name in everyone) / len(everyone)
    print(f"survive: {len(mine.kept) / len(everyone):.1%} of documents here, {len(unique) / len(everyone):.1%} there")
    print(f"decided alike by the rules: {rules:.2%}")
    print(f"decided alike in all: {alike:.2%} (bar {BAR_ALIKE:.1%}) {_verdict(alike >= BAR_ALIKE)}")
    differ = Counter[str]()
    copies = set(theirs["copies"])
    for name in everyone:
        if (name in mine.kept) != (name in unique):
            there = "kept" if name in unique else "near copy" if name in copies else theirs["reasons"][name]
            here = "kept" if name in mine.kept else mine.reasons.get(name) or "near copy"
            differ[f"{here} here, {there} there"] += 1
    for what, count in differ.most_common():
        print(f"  {count:5} {what}")
    return [ratio >= BAR_SPEED, alike >= BAR_ALIKE]


def _explain(mine: ours.Result, theirs: dict[str, Any], texts: dict[str, str]) -> None:
    """Print how alike the texts are, exactly, that only one side drops as near copies."""
    chosen = {name: texts[name] for name in texts if name not in mine.reasons}
    copies = set(theirs["copies"])
    asked = {
        "kept here, near copy there": chosen.keys() & mine.kept & copies,
        "near copy here, kept there": chosen.keys() & set(theirs["unique"]) - mine.kept,
    }
    for what, names in asked.items():
        found = sorted(exact.most_alike(chosen, names, mine.kept).values())
        if found:
            below = sum(each < ours.SIMILARITY for each in found)
            print(
                f"  {what}: to the text kept here that is most alike {found[0]:.2f} to {found[-1]:.2f},"
                f" {below} of {len(found)} below {ours.SIMILARITY:g}"
            )


def _print_times(name: str, seconds: dict[str, float], megabytes: float) -> None:
    whole = sum(seconds.values())
    shares = ", ".join(f"{step} {time / whole:.0%}" for step, time in seconds.items())
    print(f"{name:>10}: {whole:7.1f} s, {megabytes / whole:6.2f} MB/s ({shares})")


def _print_work(mine: ours.Result) -> None:
    whole = sum(mine.work.values())
    print(f"     work: {whole:7.1f} s ({', '.join(f'{name} {time / whole:.0%}' for name, time in mine.work.items())})")


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def _documents(path: Path, megabytes: float) -> list[Document]:
    documents, size = [], 0
    with path.open() as lines:
        for line in lines:
            row = json.loads(line)
            documents.append(Document(row["id"], row["text"]))
            size += len(line)
            if size > megabytes * 1e6:
                break
    return documents


def _write(documents: list[Document], folder: Path, parts: int) -> None:
    """The documents as JSONL files, one for each process, in turns."""
    folder.mkdir()
    for part in range(parts):
        with (folder / f"{part:05d}.jsonl").open("w") as out:
            for document in islice(documents, part, None, parts):
                out.write(json.dumps(document._asdict(), ensure_ascii=False) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__)
    parser.add_argument("corpus", type=Path, metavar="CORPUS.jsonl")
    parser.add_argument("--rival", metavar="PYTHON", help="an interpreter that has datatrove[processing]")
    keys = {"nargs": 2, "metavar": ("KEYS", "HASHES"), "default": [14, 8]}
    parser.add_argument("--rival-sketch", type=int, **keys, help="of datatrove; 40 17 is finer and decides more alike")
    parser.add_argument("--megabytes", type=float, default=100.0, help="of the corpus that are used")
    parser.add_argument("--vocabulary", type=int, default=8192, help="entries of the tokenizer")
    parser.add_argument("--workers", type=int, default=usable_cpus(), help="processes of each side")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
