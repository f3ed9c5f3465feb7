"""A disk that fills in any phase of an ingestion stops it with what it needs, and nothing half-written is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foundation_core import files
from foundation_core.data.shards.dataset import MANIFEST
from foundation_core.errors import SetupError
from foundation_core.events import EventLog
from foundation_core.files import PARTIAL
from foundation_core.specs import FuzzyDedupSpec
from foundation_core.stages.ingest import ingest
from tests.support.ingestion import ProcessPool

Build = Callable[..., Any]
PHASES = ("read", "exact copies", "near copies", "tokenizer", "encode", "write")
NEEDS = r"no room left on the disk.*\(\d+\.\d MB free\).*\n.*takes about \d+\.\d MB; \d+\.\d MB are there"


class FillsAt(EventLog):
    """Does something when a phase begins."""

    def __init__(self, folder: Path, name: str, fill: Callable[[], None]) -> None:
        super().__init__(folder)
        self.name, self.fill = name, fill

    def phase(self, name: str) -> None:
        super().phase(name)
        if name == self.name:
            self.fill()


def assert_nothing_is_half_written(folder: Path) -> None:
    assert not list(folder.rglob(f"*{PARTIAL}"))
    assert not list(folder.rglob(MANIFEST))
    assert not (folder / "choice").exists()


def fill(ballast: Path) -> None:
    """Take all the room that a disk has left."""
    with open(ballast, "wb", buffering=0) as sink:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while sink.write(bytes(size)) == size:
                    pass
    disk = os.statvfs(ballast)
    assert disk.f_bavail == 0


@pytest.fixture(scope="module")
def reference(
    tmp_path_factory: pytest.TempPathFactory, serial_context: Build, little_spec: Build, digests: Build
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("reference")
    ingest(little_spec(fuzzy_dedup=FuzzyDedupSpec(use=True)), {}, serial_context(folder))
    found: dict[str, str] = digests(folder)
    return found


def test_a_disk_that_is_full_says_what_is_needed_in_each_phase_and_with_room_again_it_goes_on(
    reference: dict[str, str], little_disk: Callable[[str], Path], serial_context: Build, little_spec: Build,
    digests: Build,
) -> None:  # fmt: skip
    disk, spec = little_disk("32m"), little_spec(fuzzy_dedup=FuzzyDedupSpec(use=True))
    folder, done = disk / "ingest", 0
    for phase in PHASES:
        events = FillsAt(folder, phase, lambda: fill(disk / "ballast"))
        with pytest.raises(SetupError, match=NEEDS) as caught:
            ingest(spec, {}, serial_context(folder, events=events, pool=ProcessPool()))
        assert caught.value.exit_code == 2
        assert_nothing_is_half_written(folder)
        finished = len(list(folder.rglob("unit.json")))
        assert finished >= done
        done = finished
        (disk / "ballast").unlink()
    units = {path: path.stat().st_mtime_ns for path in folder.rglob("unit.json")}
    ingest(spec, {}, serial_context(folder))
    assert digests(folder) == reference
    assert {path: path.stat().st_mtime_ns for path in units} == units  # none was done again


@pytest.mark.parametrize("phase", PHASES)
def test_a_write_that_finds_no_room_says_what_is_needed_in_each_phase(
    reference: dict[str, str], phase: str, tmp_path: Path, serial_context: Build, little_spec: Build, digests: Build,
) -> None:  # fmt: skip
    """The same without a disk of its own: the system's answer is made up."""
    spec, folder = little_spec(fuzzy_dedup=FuzzyDedupSpec(use=True)), tmp_path / "ingest"

    def no_room(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:

        def fail() -> None:
            patch.setattr(files.os, "fsync", no_room)  # what is committed
            patch.setattr(pa.ipc, "new_stream", no_room)  # scratch

        with pytest.raises(SetupError, match=NEEDS) as caught:
            ingest(spec, {}, serial_context(folder, events=FillsAt(folder, phase, fail)))
    assert caught.value.exit_code == 2
    assert_nothing_is_half_written(folder)
    ingest(spec, {}, serial_context(folder))
    assert digests(folder) == reference
