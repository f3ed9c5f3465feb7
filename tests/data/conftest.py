"""Real documents in small numbers, and token data sets made by hand."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foundation_core.data.shards.dataset import ShardDataset, ShardWriter
from foundation_core.data.units.work import TOKENS
from foundation_core.specs import FilterSpec, IngestSpec, SourceSpec, SplitSpec, TokenizerSpec


@pytest.fixture
def write_tokens() -> Callable[..., ShardDataset]:
    """Writes documents, given as lists of token ids, as a token data set."""

    def write(folder: Path, documents: Sequence[Sequence[int]], shard_size: int = 10**9) -> ShardDataset:
        names = [f"test/{number:04d}" for number in range(len(documents))]
        rows = pa.table({"document": names, "group": [""] * len(names), "tokens": documents}, schema=TOKENS)
        with ShardWriter(folder, TOKENS, source={}, shard_size=shard_size) as writer:
            writer.write(rows)
        return ShardDataset(folder)

    return write


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real Python files, with one copy, one stub and one file that is not UTF-8 among them."""
    folder = tmp_path_factory.mktemp("corpus")
    library = Path(sysconfig.get_paths()["stdlib"])
    for package in ("email", "html", "json", "urllib"):
        shutil.copytree(library / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(folder / "json" / "decoder.py", folder / "json" / "a_copy.py")
    (folder / "stub.py").write_text("pass\n")
    (folder / "latin.py").write_bytes("# h\xe9\n".encode("latin-1") * 40)
    return folder


@pytest.fixture(scope="session")
def little_spec(corpus: Path) -> Callable[..., IngestSpec]:
    """Builds the spec that the small corpus is ingested with; keywords replace its fields."""

    def build(**fields: Any) -> IngestSpec:
        usual: dict[str, Any] = {
            "source": SourceSpec(kind="folder", path=str(corpus), pattern="**/*.py"),
            "filters": (FilterSpec(measure="characters", at_least=50),),
            "split": SplitSpec(validation_fraction=0.2, test_fraction=0.2),
            "tokenizer": TokenizerSpec(vocabulary=400),
            "shard_tokens": 20_000,
            "unit_bytes": 64_000,
        }
        return IngestSpec(**{**usual, **fields})

    return build


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    """Finds the sha256 of every file that ingest leaves for others, by path below its folder."""

    def find(folder: Path) -> dict[str, str]:
        names = (
            "tokenizer.json",
            "documents/*",
            "dropped/*",
            "quarantined/*",
            "tokens/*/*",
            "features.json",
            "samples/*/*",
        )
        paths = [path for name in names for path in folder.glob(name) if path.is_file()]
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)
        }

    return find


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of a given size, such as 128k; the test is left out where that is not allowed."""
    folder = tmp_path / "disk"

    def mount(size: str) -> Path:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root, with the right to mount, can fill a disk of its own")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
