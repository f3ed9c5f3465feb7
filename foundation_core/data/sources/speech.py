"""Spoken digits, one by one and in strings: recordings named DIGIT_SPEAKER_TAKE.wav, as the Free Spoken Digit Dataset
names them. Takes 0 to 4 are its test set.
"""

from __future__ import annotations

import builtins
import hashlib
import io
import re
import wave
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from foundation_core.data.sources.digits import ENGLISH
from foundation_core.data.sources.documents import SourceFile, files_below, reason_of, refused, source_folder
from foundation_core.data.split import Split
from foundation_core.data.stores.places import Place, below
from foundation_core.specs import SourceSpec

TEST_TAKES, VALIDATION_TAKES = range(5), range(5, 10)
STRINGS_PER_RECORDING = 4
SHORTEST, LONGEST = 2, 5
"""Digits of a string."""
_NAME = re.compile(r"(\d)_(\w+)_(\d+)\.wav")
_NO_NAME = "its name is not DIGIT_SPEAKER_TAKE.wav"
_LICENCE = "CC BY-SA 4.0 where these are the recordings of the Free Spoken Digit Dataset"


class _Recording(NamedTuple):
    file: SourceFile
    digit: int
    speaker: str
    take: int


class SpokenDigits:
    """The recordings of a folder, each with its digit as the group."""

    modality, captioned = "audio", False
    description = "recordings of spoken digits"
    language, licence = "English", _LICENCE

    def __init__(self, spec: SourceSpec) -> None:
        self.root, self.pattern = source_folder(spec), spec.pattern or "*.wav"

    def files(self) -> list[SourceFile]:
        """Every recording; takes 0 to 4 are the test set."""
        return [self._named(file) for file in files_below("spoken_digits", self.root, self.pattern)]

    def _named(self, file: SourceFile) -> SourceFile:
        recording = _recording(file)
        if recording is None:
            return refused(file, _NO_NAME)
        splits: tuple[Split, ...] = ("test",) if recording.take in TEST_TAKES else ("train", "validation")
        return replace(file, group=str(recording.digit), splits=splits)


def _recording(file: SourceFile) -> _Recording | None:
    parts = _NAME.fullmatch(file.path.name)
    return None if parts is None else _Recording(file, int(parts[1]), parts[2], int(parts[3]))


@dataclass(frozen=True)
class DigitString(SourceFile):
    """Several recordings of one speaker, one behind the other.

    Args:
        path: of the folder that holds them.
        names: of their files.
        digits: what they say.
    """

    names: tuple[str, ...]
    digits: tuple[int, ...]

    def read(self) -> builtins.bytes:
        """The joined recordings as a WAV file."""
        parts = [_samples(self.path / name) for name in self.names]
        if len({form for form, _ in parts}) > 1:
            raise ValueError(f"recordings of different forms: {', '.join(self.names)}")
        sink = io.BytesIO()
        with wave.open(sink, "wb") as joined:
            joined.setnchannels(parts[0][0].channels)
            joined.setsampwidth(parts[0][0].sample_bytes)
            joined.setframerate(parts[0][0].rate_hz)
            joined.writeframes(b"".join(samples for _, samples in parts))
        return sink.getvalue()

    def caption(self) -> str:
        """The digits as words."""
        return " ".join(ENGLISH[digit] for digit in self.digits)

    def digest(self) -> str:
        """Of recordings and caption; or why they cannot be read."""
        try:
            return hashlib.sha256(self.read() + self.caption().encode()).hexdigest()
        except (OSError, ValueError) as error:
            return reason_of(error)


class _Form(NamedTuple):
    channels: int
    sample_bytes: int
    rate_hz: int


@lru_cache(maxsize=4096)
def _samples(path: Place) -> tuple[_Form, bytes]:
    try:
        with wave.open(io.BytesIO(path.read_bytes()), "rb") as recording:
            form = _Form(recording.getnchannels(), recording.getsampwidth(), recording.getframerate())
            frames = recording.getnframes()
            samples = recording.readframes(frames)
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path.name} is not a WAV file that can be read: {error or 'it is empty'}") from error
    # `wave` gives what is there and says nothing; the caption would name a digit that nobody hears.
    found = len(samples) // (form.channels * form.sample_bytes)
    if not found:
        raise ValueError(f"{path.name} is a recording of no length")
    if found < frames:
        raise ValueError(f"{path.name} ends after {found} of the {frames} frames that it announces")
    return form, samples


class SpokenDigitStrings:
    """Strings of digits, joined from the recordings of one speaker, with what is said as the caption.

    Recordings of the test takes make the strings of the test, those of five other takes the strings of validation: no
    recording is heard on two sides.
    """

    modality, captioned = "audio", True
    description = f"strings of {SHORTEST} to {LONGEST} spoken digits, joined from recordings of single ones"
    language, licence = "English", _LICENCE

    def __init__(self, spec: SourceSpec) -> None:
        self.root, self.pattern = source_folder(spec), spec.pattern or "*.wav"

    def files(self) -> list[SourceFile]:
        """Every string, sorted by id; among them each file that no string can use, with the reason."""
        sides: dict[tuple[str, Split], list[_Recording]] = defaultdict(list)
        files: list[SourceFile] = []
        for file in files_below("spoken_digit_strings", self.root, self.pattern):
            recording = _recording(file)
            if recording is None:
                files.append(refused(file, _NO_NAME))
            else:
                sides[recording.speaker, _side(recording.take)].append(recording)
        for side, recordings in sides.items():
            files += self._strings(*side, recordings)
        return sorted(files, key=lambda file: file.document)

    def _strings(self, speaker: str, split: Split, recordings: list[_Recording]) -> Iterator[DigitString]:
        for number in range(STRINGS_PER_RECORDING * len(recordings)):
            document = f"spoken_digit_strings/{speaker}/{split}/{number:05d}"
            length = SHORTEST + _hash(document, "length") % (LONGEST - SHORTEST + 1)
            chosen = [recordings[_hash(document, place) % len(recordings)] for place in range(length)]
            yield DigitString(
                document=document,
                path=self.root,
                bytes=sum(recording.file.bytes for recording in chosen),
                group=speaker,
                splits=(split,),
                names=tuple(below(self.root, recording.file.path).as_posix() for recording in chosen),
                digits=tuple(recording.digit for recording in chosen),
            )


def _side(take: int) -> Split:
    if take in TEST_TAKES:
        return "test"
    return "validation" if take in VALIDATION_TAKES else "train"


def _hash(document: str, place: int | str) -> int:
    return int.from_bytes(hashlib.blake2b(document.encode(), key=str(place).encode(), digest_size=8).digest(), "big")
