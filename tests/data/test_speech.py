"""Spoken digits: takes 0 to 4 are the test, and a string is heard on one side only."""

from __future__ import annotations

import io
import wave
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from foundation_core.data.sources.digits import ENGLISH
from foundation_core.data.sources.documents import SourceFile, open_source
from foundation_core.data.sources.modalities import open_reader, read_files
from foundation_core.data.sources.speech import LONGEST, SHORTEST, DigitString
from foundation_core.specs import IngestSpec, SourceSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from tests.support.bucket import NAME, bucket
from tests.support.raw_items import tone


def files_of(kind: str, folder: Path) -> list[SourceFile]:
    return open_source(SourceSpec(kind=kind, path=str(folder))).files()


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two speakers, three digits, twelve takes; the pitch tells which is which."""
    for digit in range(3):
        for voice, speaker in enumerate(("ann", "bob")):
            for take in range(12):
                name, hertz = f"{digit}_{speaker}_{take}.wav", 200 + 100 * digit + 30 * voice + take
                (tmp_path / name).write_bytes(tone(hertz, seconds=0.05))
    return tmp_path


def test_takes_0_to_4_are_the_test_set_and_the_digit_is_the_group(shared_data: Callable[[str], Path]) -> None:
    files = files_of("spoken_digits", shared_data("spoken_digits"))
    tests = {file.path.name for file in files if file.splits == ("test",)}
    assert len(files) == 1000
    assert tests == {file.path.name for file in files if int(file.path.stem.split("_")[2]) <= 4}
    assert all(file.splits in (("test",), ("train", "validation")) for file in files)
    assert all(file.group == file.path.name[0] for file in files)


def test_real_recordings_become_samples_without_a_loss(
    shared_data: Callable[[str], Path], tmp_path: Path, serial_context: Callable[[Path], Context]
) -> None:
    source = SourceSpec(kind="spoken_digits", path=str(shared_data("spoken_digits")))
    spec = IngestSpec.model_validate({"source": source, "audio": {"rate_hz": 8000, "mel_bins": 32, "frames": 48}})
    summary = ingest(spec, {}, serial_context(tmp_path)).summary
    assert summary["documents"] == {"in": 1000, "kept": 1000, "dropped": 0, "quarantined": 0}
    assert summary["splits"]["test"]["documents"] == 100


@pytest.mark.parametrize("kind", ["spoken_digits", "spoken_digit_strings"])
def test_a_name_that_says_nothing_is_quarantined_and_stops_nothing(recordings: Path, kind: str) -> None:
    of_named = files_of(kind, recordings)
    (recordings / "seven.wav").write_bytes(tone(300))
    spec = IngestSpec(source=SourceSpec(kind=kind, path=str(recordings)))
    files = files_of(kind, recordings)
    assert [file.document for file in files if not file.document.endswith("seven.wav")] == [
        file.document for file in of_named
    ], "a stray file changed the others"
    some = [*files[:20], *files[-20:]]
    documents, quarantined = read_files(some, open_reader(open_source(spec.source), spec))
    assert quarantined.to_pylist() == [
        {"document": f"{kind}/seven.wav", "reason": "its name is not DIGIT_SPEAKER_TAKE.wav"}
    ]
    assert len(documents) == len(some) - 1


def test_a_string_is_one_speakers_recordings_of_one_side_and_its_caption_says_them(recordings: Path) -> None:
    strings = [file for file in files_of("spoken_digit_strings", recordings) if isinstance(file, DigitString)]
    heard: dict[str, set[str]] = defaultdict(set)
    for string in strings:
        assert SHORTEST <= len(string.names) <= LONGEST
        assert {name.split("_")[1] for name in string.names} == {string.group}
        assert string.caption() == " ".join(ENGLISH[int(name[0])] for name in string.names)
        (side,) = string.splits
        heard[side] |= set(string.names)
        with wave.open(io.BytesIO(string.read())) as joined:
            assert joined.getnframes() == 400 * len(string.names)
    assert heard["test"] | heard["validation"] | heard["train"] == {path.name for path in recordings.glob("*.wav")}
    assert not heard["test"] & heard["train"]
    assert not heard["validation"] & (heard["train"] | heard["test"])
    assert len({string.caption() for string in strings}) > 20


def test_strings_are_a_function_of_the_recordings_names(recordings: Path) -> None:
    one, two = (files_of("spoken_digit_strings", recordings) for _ in range(2))
    assert [file.read() for file in one[:20]] == [file.read() for file in two[:20]]
    assert one == two


def cut_off(recording: bytes) -> bytes:
    """As a download that broke off leaves it: the header announces more than there is."""
    return recording[: 44 + (len(recording) - 44) // 2]


def of_no_frames(recording: bytes) -> bytes:
    """A header and nothing behind it, which says so."""
    sink = io.BytesIO()
    with wave.open(io.BytesIO(recording)) as whole, wave.open(sink, "wb") as empty:
        empty.setparams(whole.getparams())
    return sink.getvalue()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda recording: b"no wave", "1_ann_0.wav is not a WAV file that can be read"),
        (lambda recording: b"", "1_ann_0.wav is not a WAV file that can be read"),
        (of_no_frames, "1_ann_0.wav is a recording of no length"),
        (cut_off, "1_ann_0.wav ends after 200 of the 400 frames that it announces"),
        (lambda recording: recording[:44], "1_ann_0.wav is a recording of no length"),
    ],
    ids=["other bytes", "empty file", "no frames", "cut off", "header alone"],
)
def test_a_recording_that_cannot_be_heard_quarantines_the_strings_whose_captions_name_it(
    recordings: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    path = recordings / "1_ann_0.wav"
    path.write_bytes(damage(path.read_bytes()))
    files = [file for file in files_of("spoken_digit_strings", recordings) if "/ann/test/" in file.document]
    spec = IngestSpec(source=SourceSpec(kind="spoken_digit_strings", path=str(recordings)))
    documents, quarantined = read_files(files, open_reader(open_source(spec.source), spec))
    broken = {file.document for file in files if isinstance(file, DigitString) and "1_ann_0.wav" in file.names}
    assert set(quarantined["document"].to_pylist()) == broken
    assert all(row["reason"].startswith(reason) for row in quarantined.to_pylist())
    assert len(documents) == len(files) - len(broken) > 0


def test_strings_are_read_from_a_store_as_from_a_folder(recordings: Path) -> None:
    with bucket() as made:
        for path in recordings.glob("*.wav"):
            made.client.put_object(Bucket=NAME, Key=f"spoken/{path.name}", Body=path.read_bytes())
        here = files_of("spoken_digit_strings", recordings)
        source = SourceSpec(kind="spoken_digit_strings", path=f"{made.address}/spoken")
        there = open_source(source).files()
        assert {file.document: file.digest() for file in there} == {file.document: file.digest() for file in here}
        assert len({file.digest() for file in there}) > 100, "each string has a digest of its own"
        reader = open_reader(open_source(source), IngestSpec(source=source))
        documents, quarantined = read_files(there[:20], reader)
        assert (len(documents), len(quarantined)) == (20, 0)
