"""A little corpus with all that a data card shows: losses of each kind, copies of copies, odd characters."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation_core.data.sources.modalities import ingest_key
from foundation_core.specs import FilterSpec, FuzzyDedupSpec, IngestSpec, SourceSpec, SplitSpec, TokenizerSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.store import Result, commit_result

SYLLABLES = ("ka", "mo", "ri", "te", "su", "na", "lo", "ve", "pi", "ñu")
HARMFUL = "</style><script>document.title = 'harmed'</script> | ` <b>"
ESCAPES = "\x1b]0;harmed\x07\x1b[2J \x9b1m"
ODD = "naïve 漢字 🙂"
LONG = f"a/{'a_long_name' * 12}"
KEY = "0123456789ab"


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory, serial_context: Callable[..., Context]) -> Result:
    """The committed ingestion of that corpus, in a data folder's `results/ingest`."""
    root = tmp_path_factory.mktemp("shown")
    write_raw(root / "raw")
    return ingested(root, serial_context, source=SourceSpec(kind="folder", path=str(root / "raw"), pattern="**/*.txt"))


def ingested(home: Path, context: Callable[..., Context], **fields: Any) -> Result:
    """The committed ingestion of a spec; keywords are its fields."""
    usual: dict[str, Any] = {
        "filters": (FilterSpec(measure="characters", at_least=40),),
        "fuzzy_dedup": FuzzyDedupSpec(use=True, survivor="first"),
        "split": SplitSpec(validation_fraction=0.2, test_fraction=0.2),
        "tokenizer": TokenizerSpec(vocabulary=300),
        "shard_tokens": 3000,
        "unit_bytes": 4000,
    }
    spec = IngestSpec(**{**usual, **fields})
    folder = home / "results" / "ingest" / f"shown-{KEY}"
    return commit_result(folder, ingest_key(spec, "content"), ingest(spec, {}, context(folder)))


def write_raw(folder: Path) -> None:
    """The files: 45 texts in three folders, of which some are copies, too short or unreadable."""
    draw = random.Random(0)
    texts = {f"{'abc'[number % 3]}/{number:02d}.txt": _text(draw) for number in range(36)}
    texts["a/00.txt"] = HARMFUL + ESCAPES + texts["a/00.txt"]
    texts[f"{LONG}.txt"] = HARMFUL + texts.pop("a/30.txt")
    texts["b/01.txt"] += ODD
    texts["c/copy of 03.txt"] = texts["a/03.txt"]
    texts["a/0_near_04.txt"] = f"{texts['b/04.txt']} and a little more"  # it comes first, so it stays
    texts["c/copy of 04.txt"] = texts["b/04.txt"]  # dropped for b/04.txt, which is dropped itself
    texts |= {f"b/short {number}.txt": "too short " * number for number in range(1, 4)}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "c" / "latin.txt").write_bytes("señal ".encode("latin-1") * 20)


def _text(draw: random.Random) -> str:
    words = ("".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(draw.randint(30, 200)))
    return " ".join(words)
