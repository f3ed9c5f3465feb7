"""Recordings as series: their samples as they are, labelled, each recording on one side."""

from __future__ import annotations

import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from foundation_core.data.loading.samples import Samples
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources.digests import source_content
from foundation_core.data.sources.documents import open_source
from foundation_core.data.sources.modalities import QUARANTINED
from foundation_core.data.split import SPLITS
from foundation_core.data.values.features import load_features
from foundation_core.data.values.waves import Wave
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest

Build = Callable[[Path], Context]
WINDOW, LENGTH = 8, 43
"""Samples of a window and of a recording: five windows, and three samples that are left."""


def samples_of(number: int) -> Any:
    """(LENGTH, 2): two channels, whose mean is a rising line of its own."""
    line = (np.arange(LENGTH) + 50 * number) / 4096
    return np.stack([line + 0.25, line - 0.25], axis=1)


def write(folder: Path, number: int, rate_hz: int = 8000, form: str = "WAV") -> Path:
    """A recording of a speaker."""
    path = folder / ("anna", "ben")[number % 2] / f"{number:02d}.{form.lower()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples_of(number), rate_hz, format=form, subtype="PCM_16")
    return path


def spec(folder: Path, **fields: Any) -> IngestSpec:
    """What reads the recordings of a folder."""
    return IngestSpec.model_validate(
        {
            "source": {"kind": "wave_folder", "path": str(folder)},
            "series": {"columns": ["wave"], "window": WINDOW, "stride": WINDOW},
            "split": {"validation_fraction": 0.25, "test_fraction": 0.25},
            "quarantine_fraction": 0.5,
            **fields,
        }
    )


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two speakers, 24 recordings."""
    for number in range(24):
        write(tmp_path / "raw", number, form="FLAC" if number == 5 else "WAV")
    return tmp_path / "raw"


def test_windows_hold_the_mean_of_the_channels_sample_by_sample(
    raw: Path, tmp_path: Path, serial_context: Build
) -> None:
    ingest(spec(raw), {}, serial_context(tmp_path / "made"))
    features, seen = load_features(tmp_path / "made"), 0
    mean, std = features.statistics.mean[0], features.statistics.std[0]
    for split in SPLITS:
        samples = Samples(ShardDataset(tmp_path / "made" / "samples" / split), features)
        values = samples.gather(torch.arange(len(samples)))["values"] * std + mean
        for row, (document, group) in enumerate(zip(samples.documents(), samples.groups(), strict=True)):
            _, speaker, name, first = document.split("/")
            place = int(first) - 1
            expected = torch.tensor(samples_of(int(name[:2])).mean(axis=1)[place : place + WINDOW])
            assert (values[row, 0, 0] - expected).abs().max() < 1e-4  # the steps of 16 bits are 3e-5
            assert group == speaker == ("anna", "ben")[int(name[:2]) % 2]
            seen += 1
    assert seen == 24 * (LENGTH // WINDOW)


def test_a_recording_is_on_one_side_and_a_table_on_all(raw: Path, tmp_path: Path, serial_context: Build) -> None:
    def sides(made: Path) -> dict[str, set[str]]:
        found = defaultdict(set)
        for split in SPLITS:
            for table in ShardDataset(made / "samples" / split).tables():
                for document in table["document"].to_pylist():
                    found[document.rpartition("/")[0]].add(split)
        return found

    ingest(spec(raw), {}, serial_context(tmp_path / "waves"))
    of_recordings = sides(tmp_path / "waves")
    assert {len(splits) for splits in of_recordings.values()} == {1}
    assert set.union(*of_recordings.values()) == set(SPLITS)
    (tmp_path / "table.csv").write_text("wave\n" + "\n".join(map(str, range(400))))
    ingest(
        spec(tmp_path, source={"kind": "series_table", "path": str(tmp_path / "table.csv")}),
        {},
        serial_context(tmp_path / "table"),
    )
    assert list(sides(tmp_path / "table").values()) == [set(SPLITS)]


def test_what_cannot_be_read_is_quarantined_with_the_reason(raw: Path, tmp_path: Path, serial_context: Build) -> None:
    write(raw, 50, rate_hz=16_000)
    sink = io.BytesIO()
    soundfile.write(sink, np.zeros((0, 1)), 8000, format="WAV")
    (raw / "anna" / "60.wav").write_bytes(sink.getvalue())
    (raw / "anna" / "61.wav").write_bytes(b"RIFF, said the file")
    soundfile.write(raw / "anna" / "62.wav", np.zeros((99, 1)), 8000, format="OGG")
    soundfile.write(raw / "anna" / "63.wav", np.zeros((99, 1)), 8000, subtype="PCM_16")
    os.truncate(raw / "anna" / "63.wav", 100)
    ingest(spec(raw), {}, serial_context(tmp_path / "made"))
    tables = ShardDataset(tmp_path / "made" / "quarantined").tables()
    rows = {row["document"]: row["reason"] for table in tables for row in table.select(QUARANTINED.names).to_pylist()}
    assert rows == {
        "wave_folder/anna/50.wav": "16,000 samples a second, where most recordings have 8,000",
        "wave_folder/anna/60.wav": "a recording of no length",
        "wave_folder/anna/61.wav": "not a recording that can be decoded: Format not recognised.",
        "wave_folder/anna/62.wav": "OGG: a series is read of WAV, WAVEX, FLAC, AIFF alone",
        "wave_folder/anna/63.wav": "a recording that is cut off: the last 142 bytes that it announces are not there",
    }


def test_its_content_follows_samples_and_labels(raw: Path) -> None:
    source = spec(raw).source
    before = source_content(open_source(source).files())
    named = source_content(open_source(source.model_copy(update={"label_pattern": r"(\d)\d\.\w+$"})).files())
    soundfile.write(raw / "anna" / "00.wav", -samples_of(0), 8000)
    assert len({before, named, source_content(open_source(source).files())}) == 3


def test_another_column_than_the_wave_is_refused(raw: Path, tmp_path: Path, serial_context: Build) -> None:
    with pytest.raises(ConfigError, match="a recording has no column 'left'"):
        ingest(spec(raw, series={"columns": ["left"], "window": 8}), {}, serial_context(tmp_path / "made"))


def _noise(samples: int) -> Any:
    """(samples,) that no encoder makes short."""
    return np.random.default_rng(0).normal(size=samples) * 0.1


def _cut_off(recording: bytes) -> bytes:
    return recording[: len(recording) // 2]


def _flipped(recording: bytes) -> bytes:
    middle = len(recording) // 2
    return recording[:middle] + bytes([recording[middle] ^ 0xFF]) + recording[middle + 1 :]


def _of_a_lying_header(recording: bytes) -> bytes:
    """A FLAC that says it has 64,424,529,440 samples: bits of their number stand in its byte 21."""
    return recording[:21] + bytes([recording[21] ^ 0x0F]) + recording[22:]


@pytest.mark.parametrize(
    ("damage", "lost", "reason"),
    [
        (bytes, 0, ""),  # the negative control
        (_cut_off, 1, "its last sample cannot be read: it is cut off or damaged"),
        (_of_a_lying_header, 1, "its last sample cannot be read: it is cut off or damaged"),
        (_flipped, 5000 // WINDOW, "not a recording that can be decoded: "),
    ],
)
def test_a_damaged_flac_is_quarantined_and_stops_nothing(
    damage: Callable[[bytes], bytes], lost: int, reason: str,
    raw: Path, tmp_path: Path, serial_context: Build, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sink, decoded = io.BytesIO(), Counter[str]()
    soundfile.write(sink, _noise(5000), 8000, format="FLAC", subtype="PCM_16")
    (raw / "anna" / "70.flac").write_bytes(damage(sink.getvalue()))
    columns = Wave.columns

    def counting(self: Wave, names: Sequence[str]) -> list[list[Any]]:
        decoded[self.document] += 1
        return columns(self, names)

    monkeypatch.setattr(Wave, "columns", counting)
    summary = ingest(spec(raw, quarantine_fraction=1.0), {}, serial_context(tmp_path / "made")).summary
    whole = 24 * (LENGTH // WINDOW)
    rest = 0 if lost else 5000 // WINDOW
    assert summary["documents"] == {"in": whole + rest + lost, "kept": whole + rest, "dropped": 0, "quarantined": lost}
    assert list(summary["quarantined_by_reason"].values()) == ([lost] if lost else [])
    assert all(found.startswith(reason) and "0x" not in found for found in summary["quarantined_by_reason"])
    # once for the digests and once to be read, not for each window; not at all where its header was found out
    assert decoded["wave_folder/anna/70.flac"] == (0 if lost == 1 else 2)


def test_a_recording_shorter_than_a_window_is_quarantined_and_counted(
    raw: Path, tmp_path: Path, serial_context: Build
) -> None:
    for number in range(3):
        soundfile.write(raw / "ben" / f"8{number}.wav", _noise(WINDOW - 1), 8000)
    summary = ingest(spec(raw), {}, serial_context(tmp_path / "made")).summary
    whole = 24 * (LENGTH // WINDOW)
    assert summary["documents"] == {"in": whole + 3, "kept": whole, "dropped": 0, "quarantined": 3}
    assert summary["quarantined_by_reason"] == {"7 rows; a window has 8": 3}
    with pytest.raises(DataError, match="3 of at most 123 documents cannot be read"):
        ingest(spec(raw, quarantine_fraction=0.01), {}, serial_context(tmp_path / "strict"))
