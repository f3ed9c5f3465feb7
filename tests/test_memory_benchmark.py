"""The benchmark of memory sees what every process of a tree holds, and its corpora are the same each time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.ingest.choice import measured, write_units
from benchmarks.ingest.memory import Sample, coefficients, process_tree, pss, recombine

HOLDS = """
import subprocess, sys
held = bytearray(int(sys.argv[1]))
for at in range(0, len(held), 4096):
    held[at] = 1
child = subprocess.Popen([sys.executable, "-c", sys.argv[3], sys.argv[2], "0", ""]) if sys.argv[3] else None
print("held", flush=True)
sys.stdin.read()
"""
SIZE = 60_000_000


def held_by(first: int, below: int) -> int:
    """What a process and one that it started hold, of which each touched so many bytes."""
    command = [sys.executable, "-c", HOLDS, str(first), str(below), HOLDS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        for _ in range(2):  # both say so
            run.stdout.readline()
        tree = list(process_tree(run.pid))
        found = sum(pss(pid)[0] for pid in tree)
        run.communicate()
    assert len(tree) == 2
    assert pss(run.pid) == (0, 0)  # it has ended
    return found


def test_what_a_tree_holds_is_what_its_processes_hold_together() -> None:
    little = held_by(1, 1)
    assert 0 < little < SIZE
    for first, below in ((SIZE, 1), (1, SIZE)):
        assert 0.95 * SIZE < held_by(first, below) - little < 1.2 * SIZE


def test_a_corpus_of_a_size_is_the_same_each_time_and_made_of_real_paragraphs(tmp_path: Path) -> None:
    texts = ["\n\n".join(f"text {text}, paragraph {number}" for number in range(3 + text)) for text in range(9)]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": str(at), "text": text}) + "\n" for at, text in enumerate(texts)))
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        recombine(corpus, tmp_path / name, 0.02, seed)
    one, again, other = ((tmp_path / name / "00000.jsonl").read_text() for name in ("one", "again", "other"))
    assert one == again != other
    assert 20_000 <= len(one) < 21_000
    known = {paragraph for text in texts for paragraph in text.split("\n\n")}
    for line in one.splitlines():
        first, *rest = json.loads(line)["text"].split("\n\n")
        assert first.rpartition(" ")[0] in known  # a new word stands behind it
        assert set(rest) <= known


def test_coefficients_are_the_line_that_the_samples_lie_on() -> None:
    units, workers = (1_000_000, 16_000_000), 3
    peaks = [Sample(0.0, 200 + workers * (400 + 10 * unit), 200, 0) for unit in units]
    assert coefficients(peaks, units, workers) == (200, 400, 10)


def test_made_up_units_are_those_that_the_stage_chooses_from(tmp_path: Path) -> None:
    write_units(tmp_path, 500)
    assert 400 < measured(tmp_path, 64_000_000)["kept"] < 500, "one text in ten is a copy"
