"""Little raw data of every modality, each with items that cannot be read."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from foundation_core.specs import IngestSpec

KINDS = ("rose", "lily", "moss")


@dataclass(frozen=True)
class Case:
    """A kind of source, what writes raw data for it, and what the spec says beside.

    Args:
        reasons: why items cannot be read, by document id.
    """

    kind: str
    write: Callable[[Path], None]
    fields: Mapping[str, Any]
    reasons: Mapping[str, str]
    source: Mapping[str, str]

    def spec(self, folder: Path, **fields: Any) -> IngestSpec:
        """The spec that reads the raw data of a folder."""
        usual = {
            "source": {"kind": self.kind, "path": str(folder), **self.source},
            "split": {"validation_fraction": 0.2, "test_fraction": 0.2},
            "tokenizer": {"vocabulary": 270},
            "shard_tokens": 1024,
            "unit_bytes": 8192,
            "quarantine_fraction": 0.2,
        }
        return IngestSpec.model_validate({**usual, **self.fields, **fields})


def picture(number: int, size: tuple[int, int] = (20, 14)) -> bytes:
    """A PNG file of noise, another for each number."""
    pixels = random.Random(number).randbytes(3 * size[0] * size[1])
    sink = io.BytesIO()
    Image.frombytes("RGB", size, pixels).save(sink, "PNG")
    return sink.getvalue()


def tone(hertz: float, rate_hz: int = 8000, seconds: float = 0.2, channels: int = 1) -> bytes:
    """A WAV file of one tone, in every channel."""
    levels = (int(12_000 * math.sin(2 * math.pi * hertz * n / rate_hz)) for n in range(round(seconds * rate_hz)))
    return wav(b"".join(level.to_bytes(2, "little", signed=True) * channels for level in levels), rate_hz, channels)


def wav(samples: bytes, rate_hz: int = 8000, channels: int = 1) -> bytes:
    """A WAV file of 16-bit samples."""
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples)
    return sink.getvalue()


def _fill(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def write_images(folder: Path) -> None:
    """Classes of images; a copy, a broken one and one of no known format among them."""
    images = {f"{KINDS[number % 3]}/{number:02d}.png": picture(number) for number in range(40)}
    _fill(folder, {**images, "moss/copy.png": picture(0), "lily/cut.png": picture(7)[:-40], "lily/note.png": b"a note"})
    (folder / "rose" / "notes.txt").write_text("no image, and not called one")


def write_captioned(folder: Path) -> None:
    """A table of images with captions; one caption and one image are missing."""
    _fill(folder, {f"pictures/{number:02d}.png": picture(number) for number in range(40)})
    rows = [
        {
            "image": f"pictures/{number:02d}.png",
            "kind": KINDS[number % 3],
            "says": f"a {KINDS[number % 3]}, no {number}",
        }
        for number in range(40)
    ]
    rows[4]["says"] = " "
    rows[9]["image"] = "pictures/lost.png"
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_recordings(folder: Path) -> None:
    """Classes of recordings; one of no length and one that is none among them."""
    tones = {f"{KINDS[number % 3]}/{number:02d}.wav": tone(200 + 40 * number) for number in range(40)}
    _fill(folder, {**tones, "moss/silent.wav": wav(b""), "moss/text.wav": b"RIFF, said the file"})


def write_table(folder: Path) -> None:
    """A table of numbers; one is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    with open(folder / "numbers.csv", "w", newline="") as sink:
        lines = csv.writer(sink)
        lines.writerow(["hour", "warm", "wet", "kind"])
        for hour in range(400):
            warm = "" if hour == 21 else f"{10 + math.sin(hour / 9) + draw.random():.3f}"
            lines.writerow([hour, warm, 1_000 + hour % 7, KINDS[hour // 150]])


CASES = {
    "images": Case(
        "image_folder",
        write_images,
        {"image": {"size_pixels": 8}},
        {
            "image_folder/lily/cut.png": "not an image that can be decoded: image file is truncated",
            "image_folder/lily/note.png": "not an image that can be decoded: no known format",
        },
        {},
    ),
    "captioned images": Case(
        "image_table",
        write_captioned,
        {"image": {"size_pixels": 8}},
        {
            "image_table/table.jsonl/000000005": "no caption",
            "image_table/table.jsonl/000000010": "unreadable: No such file or directory",
        },
        {"label_field": "kind", "caption_field": "says"},
    ),
    "audio": Case(
        "audio_folder",
        write_recordings,
        {"audio": {"rate_hz": 8000, "mel_bins": 16, "frames": 12}},
        {
            "audio_folder/moss/silent.wav": "a recording of no length",
            "audio_folder/moss/text.wav": "not a recording that can be decoded: Format not recognised.",
        },
        {},
    ),
    "series": Case(
        "series_table",
        write_table,
        {"series": {"columns": ["warm", "wet"], "window": 10, "stride": 10}},
        {"series_table/numbers.csv/000000021": "row 2 has no number in column 'warm': ''"},
        {"label_field": "kind"},
    ),
}
