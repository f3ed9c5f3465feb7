"""The benchmark of ingestion runs from end to end without its rival; what it measures is no matter here."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = (
    "the of and to house river walked slowly under bridge morning children bread with window green garden told".split()
)


def test_it_compares_near_copies_and_encoding_with_what_they_must_be(tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = [". ".join(" ".join(draw.choices(WORDS, k=9)) for _ in range(12)) for _ in range(60)]
    rows = [{"id": f"page {number}", "text": text} for number, text in enumerate([*texts, *texts[:5]])]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "benchmarks.ingest", str(corpus), "--workers", "1", "--vocabulary", "300"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert "65 texts, 5 pairs of at least 0.8" in done.stdout, done.stderr
    assert "recall 1.0000 (bar 0.95), precision 1.0000 (bar 0.99)" in done.stdout
    assert "ids of tokenizers: True" in done.stdout
