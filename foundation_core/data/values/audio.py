"""Recordings become log-mel spectrograms of one size.

    bytes --libsndfile--> samples --mean of channels, soxr--> rate_hz --Hann, FFT, power--> mel bands --log--> (1, F, T)

Bands are triangles of height 1, evenly spaced on HTK's mel scale, from 0 Hz to half the rate. The first frame begins
with the first sample; nothing is padded in front.

Legend: F mel bins, T frames, K frequencies of the FFT, W samples of a window.

Source: Davis and Mermelstein, "Comparison of Parametric Representations for Monosyllabic Word Recognition", 1980; the
scale is that of Young et al., "The HTK Book", equation 5.13: mel = 2595 log10(1 + hertz / 700).
"""

from __future__ import annotations

import io
import math
import struct
import wave
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from foundation_core.data.sources.modalities import Content, Item, Modality
from foundation_core.data.values.chunks import refuse_cut_off
from foundation_core.errors import ConfigError
from foundation_core.plugins import need
from foundation_core.shape import SampleShape
from foundation_core.specs import AudioSpec, IngestSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

FLOOR = 1e-6
"""The least power of a band: about that of the steps of 16-bit samples. The logarithm of silence is that of this."""


class Audio(Modality):
    """Recordings of any format that libsndfile reads: WAV, FLAC, Ogg, MP3."""

    libraries = ("soundfile", "soxr", "numpy")
    reads = ("audio",)
    values = pa.float32()

    def __init__(self, spec: IngestSpec) -> None:
        need("audio", "soundfile", "soxr", "numpy")
        self._spec = of = spec.audio
        self.shape = SampleShape(channels=1, height=of.mel_bins, width=of.frames)
        self.reading = (
            f"Decoded by libsndfile, channels averaged, resampled to {of.rate_hz:,} Hz by soxr; natural logarithm of"
            f" {of.mel_bins} mel bands (HTK's scale), {of.frames} frames of {of.window_ms:g} ms every {of.hop_ms:g} ms;"
            " longer recordings are cut, shorter ones are followed by silence."
        )
        _check_bands(of)

    def example(self) -> Item:
        """A WAV file: half a second of 440 Hz."""
        rate_hz, sink = self._spec.rate_hz, io.BytesIO()
        samples = [round(16_000 * math.sin(2 * math.pi * 440 * place / rate_hz)) for place in range(rate_hz // 2)]
        with wave.open(sink, "wb") as recording:
            recording.setnchannels(1)
            recording.setsampwidth(2)
            recording.setframerate(rate_hz)
            recording.writeframes(struct.pack(f"<{len(samples)}h", *samples))
        return sink.getvalue()

    def read(self, data: bytes) -> Content:
        """The spectrogram, (1, F, T)."""
        import numpy as np

        samples, rate_hz = _decoded(data, self._seconds())
        if rate_hz != self._spec.rate_hz:
            import soxr

            samples = soxr.resample(samples, rate_hz, self._spec.rate_hz)
        with np.errstate(over="ignore", invalid="ignore"):
            values = log_mel(samples, self._spec)
        if not np.isfinite(values).all():
            raise ValueError("a recording with samples too large to be sound")
        return Content(values=values.astype("<f4").tobytes(), cut=len(samples) > _length(self._spec))

    def _seconds(self) -> float:
        """As much of a recording as the frames look at, and a little for the resampling filter."""
        return _length(self._spec) / self._spec.rate_hz + 0.1


def _length(spec: AudioSpec) -> int:
    """Samples that the frames look at."""
    return spec.window_samples + (spec.frames - 1) * spec.hop_samples


def _decoded(data: bytes, seconds: float) -> tuple[Array, int]:
    """The first seconds of a recording, (samples,), and its rate."""
    import numpy as np
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as recording:
            rate_hz: int = recording.samplerate
            samples_SC = recording.read(math.ceil(seconds * rate_hz), dtype="float64", always_2d=True)
    except soundfile.LibsndfileError as error:  # its message names the bytes by their address in memory
        raise ValueError(f"not a recording that can be decoded: {error.error_string}") from error
    if not len(samples_SC):
        raise ValueError("a recording of no length")
    refuse_cut_off(data)
    if not np.isfinite(samples_SC).all():
        raise ValueError("a recording with samples that are no numbers")
    return samples_SC.mean(axis=1), rate_hz


def log_mel(samples: Array, spec: AudioSpec) -> Array:
    """The log-mel spectrogram of samples at the spec's rate, (F, T)."""
    import numpy as np

    window, hop = spec.window_samples, spec.hop_samples
    length = _length(spec)
    whole = np.zeros(length)
    whole[: len(samples)] = samples[:length]
    frames_TW = np.lib.stride_tricks.sliding_window_view(whole, window)[::hop]
    hann_W = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power_TK = np.abs(np.fft.rfft(frames_TW * hann_W, _fft_samples(spec))) ** 2
    bands_FT: Array = _mel_filters(spec.rate_hz, spec.mel_bins, _fft_samples(spec)) @ power_TK.T
    return np.log(np.maximum(bands_FT, FLOOR))


def _fft_samples(spec: AudioSpec) -> int:
    return 1 << (spec.window_samples - 1).bit_length()


@lru_cache(maxsize=4)
def _mel_filters(rate_hz: int, bins: int, fft_samples: int) -> Array:
    """What each band takes of each frequency, (F, K)."""
    import numpy as np

    frequencies_K = np.fft.rfftfreq(fft_samples, 1 / rate_hz)
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate_hz / 2 / 700), bins + 2) / 2595) - 1)
    low, center, high = (corners[start : start + bins, None] for start in range(3))
    rising, falling = (frequencies_K - low) / (center - low), (high - frequencies_K) / (high - center)
    return np.maximum(0, np.minimum(rising, falling))


def _check_bands(spec: AudioSpec) -> None:
    """Refuse bands so narrow that no frequency falls into them: they would be silent for ever."""
    silent = int((_mel_filters(spec.rate_hz, spec.mel_bins, _fft_samples(spec)).max(axis=1) == 0).sum())
    if silent:
        raise ConfigError(
            f"ingest.audio.mel_bins={spec.mel_bins}: {silent} of the bands lie between two frequencies of the"
            f" {_fft_samples(spec)}-sample FFT and would always be silent",
            fix="lower ingest.audio.mel_bins, or raise ingest.audio.window_ms",
        )
