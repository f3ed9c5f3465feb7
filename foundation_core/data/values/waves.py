"""Recordings as series: a row is a sample, and the one column is called `wave`.

speech/anna/12.wav --> a table of its samples, group "anna" --> windows, all in the split of their recording
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from foundation_core.data.sources.documents import SourceFile, reason_of, refused
from foundation_core.data.sources.media import AudioFolder
from foundation_core.data.split import Split, split_of
from foundation_core.data.values.chunks import refuse_cut_off
from foundation_core.data.values.series import SeriesFile
from foundation_core.errors import ConfigError
from foundation_core.plugins import need
from foundation_core.specs import SourceSpec, SplitSpec

if TYPE_CHECKING:
    from soundfile import LibsndfileError, SoundFile

COLUMN = "wave"
"""What the column of samples is called."""
_LOSSLESS = ("WAV", "WAVEX", "FLAC", "AIFF")
"""Formats whose samples are the same whatever decodes them."""


@dataclass(frozen=True)
class Wave(SeriesFile):
    """The samples of a recording, from -1 to 1, the mean of its channels.

    Args:
        samples: how many there are.
    """

    samples: int

    def require(self, columns: Sequence[str]) -> None:
        """Refuse columns but its own."""
        if other := [name for name in columns if name != COLUMN]:
            raise ConfigError(f"a recording has no column {other[0]!r}", allowed=f"ingest.series.columns: [{COLUMN}]")

    def labels(self) -> list[str]:
        """That of the recording, for each sample."""
        return [self.group] * self.samples

    def licences(self) -> list[str]:
        """None of a sample's own."""
        return [""] * self.samples

    def columns(self, names: Sequence[str]) -> list[list[Any]]:
        """The samples.

        Raises:
            OSError, ValueError: they cannot be read.
        """
        import soundfile

        try:
            samples_SC, _ = soundfile.read(io.BytesIO(self.path.read_bytes()), dtype="float64", always_2d=True)
        except soundfile.LibsndfileError as error:  # its message names the bytes by their address in memory
            raise ValueError(_undecodable(error)) from error
        return [samples_SC.mean(axis=1).tolist() for _ in names]

    def stretches(self, rows: int, split: SplitSpec) -> list[tuple[Split, int, int]]:
        """All of it in one split, by its id: no recording is heard on two sides."""
        return [(split_of(self.document, split, self.splits), 0, rows)]

    def digest(self) -> str:
        """Of its bytes and its label."""
        try:
            return hashlib.sha256(self.path.read_bytes() + b"\0" + self.group.encode()).hexdigest()
        except OSError as error:
            return reason_of(error)


class _Header(NamedTuple):
    rate_hz: int
    samples: int


class WaveFolder(AudioFolder):
    """The recordings of a folder, sample by sample, labelled as those of `audio_folder` are.

    Windows of different rates would be as long and mean different times, so a recording of another rate than most have
    is refused.
    """

    modality, name, suffixes = "series", "wave_folder", frozenset({".wav", ".flac", ".aiff", ".aif"})

    def __init__(self, spec: SourceSpec) -> None:
        need("audio", "soundfile")
        super().__init__(spec)

    def files(self) -> list[SourceFile]:
        """Every recording; of each the header is read."""
        found = [(file, _header(file)) for file in super().files()]
        rates = Counter(header.rate_hz for _, header in found if isinstance(header, _Header))
        usual = min(rates, key=lambda rate: (-rates[rate], rate), default=0)
        return [self._wave(file, header, usual) for file, header in found]

    def _wave(self, file: SourceFile, header: _Header | str, usual_hz: int) -> SourceFile:
        if isinstance(header, str):
            return refused(file, header)
        if header.rate_hz != usual_hz:
            return refused(file, f"{header.rate_hz:,} samples a second, where most recordings have {usual_hz:,}")
        return Wave(
            file.document,
            file.path,
            file.bytes,
            file.group,
            label_field=None,
            licence_field=None,
            samples=header.samples,
        )


def _header(file: SourceFile) -> _Header | str:
    """How many samples a recording has, and of which rate; or why it cannot be read.

    A header that announces more than there is, as a download that broke off leaves it, is found out by its chunks, or
    by its last sample.
    """
    import soundfile

    try:
        data = file.read()
        with soundfile.SoundFile(io.BytesIO(data)) as recording:
            if recording.format not in _LOSSLESS:
                return f"{recording.format}: a series is read of {', '.join(_LOSSLESS)} alone"
            if not recording.frames:
                return "a recording of no length"
            refuse_cut_off(data)
            header = _Header(recording.samplerate, recording.frames)
            return header if _has_last_sample(recording) else "its last sample cannot be read: it is cut off or damaged"
    except soundfile.LibsndfileError as error:  # its message names the bytes by their address in memory
        return _undecodable(error)
    except (OSError, ValueError) as error:
        return reason_of(error)


def _has_last_sample(recording: SoundFile) -> bool:
    import soundfile

    try:
        recording.seek(recording.frames - 1)
        return len(recording.read(1)) == 1
    except soundfile.LibsndfileError:
        return False


def _undecodable(error: LibsndfileError) -> str:
    return f"not a recording that can be decoded: {error.error_string}"
