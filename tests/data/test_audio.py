"""Recordings become log-mel spectrograms: those of the published definition, of the right pitch, at any rate."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from foundation_core.data.values.audio import FLOOR, Audio, log_mel
from foundation_core.errors import ConfigError
from foundation_core.events import read_events
from foundation_core.specs import AudioSpec, IngestSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from tests.support.raw_items import tone, wav


def audio(**fields: Any) -> Audio:
    return Audio(IngestSpec.model_validate({"audio": {"rate_hz": 8000, "mel_bins": 40, "frames": 16, **fields}}))


def spectrogram_of(data: bytes, **fields: Any) -> np.ndarray[Any, Any]:
    reader = audio(**fields)
    values = np.frombuffer(reader.read(data).values, "<f4")
    return values.reshape(reader.shape.height, reader.shape.width)


def reference(samples: np.ndarray[Any, Any], spec: AudioSpec, scale: str) -> np.ndarray[Any, Any]:
    """The same by `transformers`."""
    window, fft = spec.window_samples, 1 << (spec.window_samples - 1).bit_length()
    filters = mel_filter_bank(
        fft // 2 + 1, spec.mel_bins, 0, spec.rate_hz / 2, spec.rate_hz, norm=None, mel_scale=scale
    )
    made: np.ndarray[Any, Any] = spectrogram(
        samples, window_function(window, "hann"), window, spec.hop_samples, fft,
        power=2.0, center=False, mel_filters=filters, mel_floor=FLOOR, log_mel="log",
    )  # fmt: skip
    return made


@pytest.mark.parametrize(("rate_hz", "bins", "window_ms"), [(8000, 40, 32), (16_000, 80, 25), (22_050, 64, 25)])
def test_the_spectrogram_is_that_of_transformers(rate_hz: int, bins: int, window_ms: float) -> None:
    spec = AudioSpec(rate_hz=rate_hz, mel_bins=bins, frames=50, window_ms=window_ms)
    samples = np.random.default_rng(0).normal(size=spec.window_samples + 49 * spec.hop_samples) * 0.1
    made = log_mel(samples, spec)
    # theirs is rounded to float32 on the way: 4.4e-7 measured at the most
    assert np.abs(made - reference(samples, spec, "htk")).max() < 2e-6
    assert np.abs(made - reference(samples, spec, "slaney")).max() > 1  # the negative control: another mel scale


@pytest.mark.parametrize("hertz", [300, 1000, 2500])
def test_a_tone_lands_in_the_band_around_its_pitch(hertz: int) -> None:
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 42) / 2595) - 1)
    expected = int(np.abs(corners[1:-1] - hertz).argmin())
    assert set(spectrogram_of(tone(hertz)).argmax(axis=0)) == {expected}


def test_a_tone_sounds_the_same_at_any_rate_and_from_any_number_of_channels() -> None:
    usual = spectrogram_of(tone(1000))
    band = usual.argmax(axis=0)[0]
    assert np.array_equal(spectrogram_of(tone(1000, channels=2)), usual)
    for rate_hz in (16_000, 44_100):
        other = spectrogram_of(tone(1000, rate_hz=rate_hz))
        # in the band of the tone; 6.8e-5 measured, from 44,100 Hz
        assert np.abs(other[band] - usual[band]).max() < 3e-4
    assert spectrogram_of(tone(1000), rate_hz=16_000).argmax(axis=0)[3] != band  # the negative control: other bands


def test_a_short_recording_is_followed_by_silence_and_a_long_one_is_cut() -> None:
    short = spectrogram_of(tone(500, seconds=0.05))
    assert (short[:, -8:] == np.float32(np.log(FLOOR))).all()
    assert (short[:, 0] > np.log(FLOOR)).any()
    assert np.array_equal(spectrogram_of(tone(500, seconds=2.0)), spectrogram_of(tone(500, seconds=0.5)))


def test_flac_and_float_recordings_are_read_too() -> None:
    samples, rate_hz = soundfile.read(io.BytesIO(tone(700)))
    for form, kind in (("FLAC", "PCM_16"), ("WAV", "DOUBLE")):
        sink = io.BytesIO()
        soundfile.write(sink, samples, rate_hz, format=form, subtype=kind)
        assert np.array_equal(spectrogram_of(sink.getvalue()), spectrogram_of(tone(700)))


def _float_wav(samples: list[float]) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, np.array(samples), 8000, format="WAV", subtype="DOUBLE")
    return sink.getvalue()


def _aiff(recording: bytes) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, *soundfile.read(io.BytesIO(recording)), format="AIFF", subtype="PCM_16")
    return sink.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wav(b""), "a recording of no length"),
        (b"", "cannot|can be decoded"),
        (b"RIFF no", "not a recording that can be decoded: Format not recognised"),
        (_float_wav([0.0, float("nan")]), "samples that are no numbers"),
        (_float_wav([1e160] * 4000), "samples too large to be sound"),
        (_float_wav([1e308] * 4000), "samples too large to be sound"),
        (tone(440)[:-10], "cut off: the last 10 bytes that it announces are not there"),
        (_aiff(tone(440))[:-1000], "cut off: the last 1,000 bytes"),
    ],
)
def test_what_is_no_recording_is_refused_in_words_without_addresses(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        audio().read(data)
    assert "0x" not in str(refused.value)


@pytest.mark.parametrize("announced", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_recording_whose_length_its_writer_did_not_know_is_read(announced: int) -> None:
    whole, there = tone(440), tone(440).index(b"data") + 4
    piped = whole[:there] + announced.to_bytes(4, "little") + whole[there + 4 :]
    assert np.array_equal(spectrogram_of(piped), spectrogram_of(whole))
    assert np.array_equal(spectrogram_of(_aiff(whole)), spectrogram_of(whole)), "what is whole is not cut off"


def test_bands_between_the_frequencies_of_the_fft_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"mel_bins=128: \d+ of the bands lie between two frequencies"):
        audio(mel_bins=128)


def test_the_wav_files_of_these_tests_are_what_they_say() -> None:
    with wave.open(io.BytesIO(tone(440, seconds=0.5, channels=2))) as file:
        assert (file.getnframes(), file.getnchannels(), file.getframerate()) == (4000, 2, 8000)


def test_recordings_longer_than_the_frames_are_counted(
    tmp_path: Path, serial_context: Callable[[Path], Context]
) -> None:
    (tmp_path / "raw").mkdir()
    for number in range(12):
        (tmp_path / "raw" / f"{number:02d}.wav").write_bytes(tone(300 + number, seconds=0.5 if number < 3 else 0.1))
    asked: dict[str, Any] = {
        "source": {"kind": "audio_folder", "path": str(tmp_path / "raw")},
        "audio": {"rate_hz": 16_000, "mel_bins": 16, "frames": 16},
        "split": {"validation_fraction": 0.3, "test_fraction": 0.3, "seed": 1},
    }
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    told = "3 of 12 items are longer than their values and were cut"
    assert ingest(IngestSpec.model_validate(asked), {}, serial_context(cut)).summary["cut"] == 3
    assert told in (cut / "card" / "data_card.md").read_text()
    assert any(event.get("text") == told for _, event in read_events(cut))
    roomy = IngestSpec.model_validate({**asked, "audio": {**asked["audio"], "frames": 64}})
    assert "cut" not in ingest(roomy, {}, serial_context(whole)).summary
    assert "were cut" not in (whole / "card" / "data_card.md").read_text()
